"""Probes and hooks against servers that listen: every kind, what they send, and what they say when it fails."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilotage.agent.checks import Checker
from pilotage.agent.runtime.fake import FakeRuntime
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Container, LifecycleHandler, Probe

NOBODY = Container(name="c")


@asynccontextmanager
async def checker() -> AsyncIterator[Checker]:
    one = Checker(FakeRuntime())
    try:
        yield one
    finally:
        await one.aclose()


def probe(**fields: Any) -> Probe:
    return convert(Probe, fields)


@asynccontextmanager
async def http_server(certificate: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[web.Request]]]:
    """Answers with the status that the path names."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=int(request.path.strip("/")), headers={"Location": "http://192.0.2.1/"})

    application = web.Application()
    application.router.add_get("/{status}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate)
    await site.start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


def self_signed(directory: Path) -> ssl.SSLContext:
    """For a name that nobody asks for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.test")])
    begin = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "pem"
    plain = serialization.NoEncryption()
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, True), (302, True), (404, False), (503, False)],
    ids=["ok", "a redirect is not followed, and good", "not found", "unavailable"],
)
async def test_http(status: int, expected: bool) -> None:
    async with http_server() as (port, seen), checker() as ask:
        headers = [{"name": "X-Asked", "value": "yes"}]
        one = probe(httpGet={"port": port, "path": f"/{status}", "httpHeaders": headers})
        success, message = await ask.probe(one, NOBODY, "", "127.0.0.1")
        assert success is expected
        assert expected or message == f"HTTP probe failed with statuscode: {status}"
        assert seen[0].headers["X-Asked"] == "yes"
        assert seen[0].headers["User-Agent"].startswith("kube-probe/")


async def test_https_does_not_ask_whose_certificate_it_is(tmp_path: Path) -> None:
    async with http_server(self_signed(tmp_path)) as (port, _), checker() as ask:
        one = probe(httpGet={"port": port, "path": "/200", "scheme": "HTTPS"})
        assert await ask.probe(one, NOBODY, "", "127.0.0.1") == (True, "")


async def test_a_port_may_be_named_and_a_name_that_nobody_has_is_told() -> None:
    async with http_server() as (port, _), checker() as ask:
        container = convert(Container, {"name": "c", "ports": [{"name": "web", "containerPort": port}]})
        assert (await ask.probe(probe(tcpSocket={"port": "web"}), container, "", "127.0.0.1"))[0]
        assert (await ask.probe(probe(httpGet={"port": "web", "path": "/200"}), container, "", "127.0.0.1"))[0]
        success, message = await ask.probe(probe(httpGet={"port": "other"}), container, "", "127.0.0.1")
        assert (success, message) == (False, 'couldn\'t find port: "other"')


async def test_a_server_that_says_nothing_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, checker() as ask:
        success, message = await ask.probe(probe(httpGet={"port": port}, timeoutSeconds=1), NOBODY, "", "127.0.0.1")
        assert not success
        assert "context deadline exceeded" in message
        assert (await ask.probe(probe(tcpSocket={"port": port}), NOBODY, "", "127.0.0.1")) == (True, "")
    refused, message = await ask.probe(probe(tcpSocket={"port": port}), NOBODY, "", "127.0.0.1")
    assert (refused, message) == (False, f"dial tcp 127.0.0.1:{port}: connect: connection refused")
    refused, message = await ask.probe(probe(tcpSocket={"port": port}), NOBODY, "", "::1")
    assert (refused, message) == (False, f"dial tcp [::1]:{port}: connect: connection refused")


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Serves the service `good` only."""

    async def Check(self, request: Any, context: Any) -> Any:
        serving = health_pb2.HealthCheckResponse.ServingStatus.Value
        return health_pb2.HealthCheckResponse(status=serving("SERVING" if request.service == "good" else "NOT_SERVING"))


async def test_grpc() -> None:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with checker() as ask:
            good = probe(grpc={"port": port, "service": "good"}, timeoutSeconds=20)
            assert await ask.probe(good, NOBODY, "", "127.0.0.1") == (True, "service healthy")
            bad = probe(grpc={"port": port, "service": "bad"}, timeoutSeconds=20)
            answer = await ask.probe(bad, NOBODY, "", "127.0.0.1")
            assert answer == (False, 'service unhealthy (responded with "NOT_SERVING")')
    finally:
        await server.stop(None)
    async with checker() as ask:
        gone = probe(grpc={"port": port, "service": "good"})
        success, message = await ask.probe(gone, NOBODY, "", "127.0.0.1")
        assert (success, message) == (
            False,
            f'timeout: failed to connect service "127.0.0.1:{port}" within 1s',
        )


async def test_hooks_ask_by_http_too_and_sleep_no_longer_than_they_may() -> None:
    async with http_server() as (port, seen), checker() as ask:
        hook = convert(LifecycleHandler, {"httpGet": {"port": port, "path": "/200"}})
        assert await ask.hook(hook, NOBODY, "", "127.0.0.1", 5.0) == (True, "")
        assert len(seen) == 1
        sleep = convert(LifecycleHandler, {"sleep": {"seconds": 600}})
        async with asyncio.timeout(5):
            assert await ask.hook(sleep, NOBODY, "", "127.0.0.1", 0.05) == (True, "")
