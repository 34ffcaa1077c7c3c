"""The proxy subresources, to pods that have real addresses in the test's own network namespace."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.netns.conftest import own_address

from pilotage.apiserver.certificates import Authority
from pilotage.client import load_kubeconfig
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import PODS, Http, connected, pod

ADDRESS = "10.244.1.5"
NAMESPACE = "/api/v1/namespaces/default"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[None]:
    with own_address(ADDRESS):
        yield


async def answer(request: web.Request) -> web.StreamResponse:
    """A pod's program: it tells what it was asked, or does as it is asked."""
    match request.path:
        case "/redirect":
            raise web.HTTPFound(f"http://{request.host}/elsewhere?a=b")
        case "/zipped":
            return web.Response(body=gzip.compress(b"small"), headers={"Content-Encoding": "gzip", "ETag": '"1"'})
        case "/cookie":
            return web.Response(headers={"Set-Cookie": "session=jane"})
        case "/torn":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response
        case "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(3):
                await response.write(b"tick\n")
            await asyncio.Event().wait()
        case "/socket":
            socket = web.WebSocketResponse(protocols=("chat",))
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(message.data.upper())
            return socket
    body = await request.read()
    document = {
        "method": request.method,
        "target": request.raw_path,
        "headers": {key.lower(): value for key, value in request.headers.items()},
        "body": body.decode("latin-1"),
    }
    return web.json_response(document, status=int(request.query.get("status", "200")))


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The pod's program on a port of the pod's address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, ADDRESS, 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Proxied:
    """The API server, and a pod `web` whose program listens on `port`."""

    def __init__(self, http: Http, port: int) -> None:
        self.http = http
        self.port = port
        self.pod = f"{PODS}/web:{port}/proxy"

    async def place(self, name: str, ip: str) -> None:
        """A pod with an address."""
        await self.http("POST", PODS, pod(name))
        status = {"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}
        got = await self.http("PATCH", f"{PODS}/{name}/status", status, Content_Type=MERGE)
        assert got.status == 200, got.body

    async def allow(self, user: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> None:
        rule: dict[str, Any] = {"apiGroups": [""], "resources": resources, "verbs": verbs}
        if names:
            rule["resourceNames"] = names
        await self.http("POST", f"{RBAC}/roles", {"metadata": {"name": user}, "rules": [rule]})
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
        await self.http(
            "POST",
            f"{RBAC}/rolebindings",
            {"metadata": {"name": user}, "roleRef": reference, "subjects": [subject]},
        )


@pytest.fixture
async def proxied() -> AsyncIterator[Proxied]:
    async with api_server() as server, connected(server) as http, serving() as port:
        found = Proxied(http, port)
        await found.place("web", ADDRESS)
        yield found


async def test_requests_arrive_as_they_were_sent_and_answers_come_back_as_they_were_given(proxied: Proxied) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        body = None if method in ("GET", "OPTIONS") else bytes(range(256)) * 1000
        got = await proxied.http(
            method, f"{proxied.pod}/a%2Fb/c?x=%20y&status=418", body, Authorization="Bearer x", X_Own="1"
        )
        assert got.status == 418
        assert (got.body["method"], got.body["target"]) == (method, "/a%2Fb/c?x=%20y&status=418")
        assert got.body["body"].encode("latin-1") == (body or b"")
        headers = got.body["headers"]
        assert headers["x-own"] == "1" and headers["host"] == f"{ADDRESS}:{proxied.port}"
        assert headers["x-forwarded-uri"] == proxied.pod and headers["x-forwarded-for"] == "127.0.0.1"
        assert not {"authorization", "impersonate-user"} & set(headers)


async def test_paths_redirects_codings_and_cookies(proxied: Proxied) -> None:
    http = proxied.http
    tls = load_kubeconfig(http.server.kubeconfig_path).ssl_context() or True
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        url = http.server.url

        async def ask(path: str, method: str = "GET") -> tuple[int, Any, bytes]:
            async with session.request(method, url + path, ssl=tls, allow_redirects=False) as got:
                return got.status, got.headers, await got.read()

        status, headers, _ = await ask(f"{proxied.pod}?q=1")
        assert (status, headers["Location"]) == (301, f"{proxied.pod}/?q=1")
        status, headers, _ = await ask(f"{proxied.pod}/redirect")
        assert (status, headers["Location"]) == (302, f"{proxied.pod}/elsewhere?a=b")
        status, headers, raw = await ask(f"{proxied.pod}/x", "HEAD")
        assert (status, raw) == (200, b"") and int(headers["Content-Length"]) > 0
        status, headers, raw = await ask(f"{proxied.pod}/zipped")
        assert (headers["Content-Encoding"], headers["ETag"], gzip.decompress(raw)) == ("gzip", '"1"', b"small")
    assert (await http("GET", f"{proxied.pod}/cookie")).headers["Set-Cookie"] == "session=jane"
    async with connected(http.server) as somebody_else:
        assert "cookie" not in (await somebody_else("GET", f"{proxied.pod}/x")).body["headers"]
    squeezed = await http("POST", f"{proxied.pod}/x", gzip.compress(b"hello"), Content_Encoding="gzip")
    assert squeezed.body["body"] == "hello"


async def test_what_is_sent_piece_by_piece_arrives_piece_by_piece(proxied: Proxied) -> None:
    async with asyncio.timeout(10), proxied.http.watch(f"{proxied.pod}/slow") as stream:
        assert [await stream._content.readline() for _ in range(3)] == [b"tick\n"] * 3


async def test_a_torn_answer_is_torn_for_the_client_too(proxied: Proxied) -> None:
    with pytest.raises(aiohttp.ClientError):
        await proxied.http("GET", f"{proxied.pod}/torn")


async def test_targets_that_cannot_be_reached_or_must_not(proxied: Proxied) -> None:
    http = proxied.http
    closed = await http("GET", f"{PODS}/web:1/proxy/")
    assert (closed.status, closed.reason) == (503, "ServiceUnavailable")
    assert f"error trying to reach service: dial tcp {ADDRESS}:1: connect: connection refused" in closed.body["message"]
    for name, ip in (("here", "127.0.0.1"), ("link", "169.254.169.254")):
        await proxied.place(name, ip)
        got = await http("GET", f"{PODS}/{name}:{proxied.port}/proxy/")
        assert (got.status, got.body["message"]) == (400, "address not allowed")
    assert (await http("GET", f"{PODS}/none/proxy/")).status == 404
    assert (await http("GET", f"{PODS}/ftp:web:21/proxy/")).status == 400
    assert (await http("GET", f"{PODS}/web/exec/more")).status == 404
    node = {"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}
    await http("POST", "/api/v1/nodes", node)
    assert (await http("GET", "/api/v1/nodes/n1/proxy/healthz")).status == 400


async def test_a_service_leads_to_its_ready_pods_by_name_or_number_of_the_port(proxied: Proxied) -> None:
    http = proxied.http
    ports = [{"name": "web", "port": 80, "targetPort": proxied.port}]
    await http("POST", f"{NAMESPACE}/services", {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    none = await http("GET", f"{NAMESPACE}/services/web:80/proxy/")
    assert (none.status, none.body["message"]) == (503, 'no endpoints available for service "web"')
    endpoints = [
        {"addresses": [ADDRESS], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "web"}},
        {"addresses": ["10.244.1.6"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "web"}},
    ]
    slices = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "web", "port": proxied.port, "protocol": "TCP"}],
    }
    made = await http("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slices)
    assert made.status == 201, made.body
    for name in ("web:80", "web:web", "http:web:80"):
        for _ in range(5):  # never the address that no pod has
            got = await http("GET", f"{NAMESPACE}/services/{name}/proxy/x")
            assert (got.status, got.body["target"]) == (200, "/x")


async def test_https_targets_need_no_certificate_we_know(proxied: Proxied, tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "other").load_or_issue_server(tmp_path, "pod", ("pod",), ())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "pod.crt", tmp_path / "pod.key")
    async with serving(tls) as port:
        assert (await proxied.http("GET", f"{PODS}/https:web:{port}/proxy/x")).body["target"] == "/x"


async def test_a_web_socket_goes_through_with_its_protocol(proxied: Proxied) -> None:
    tls = load_kubeconfig(proxied.http.server.kubeconfig_path).ssl_context() or True
    url = f"{proxied.http.server.url}{proxied.pod}/socket"
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        async with session.ws_connect(url, ssl=tls, protocols=("chat",)) as socket:
            assert socket.protocol == "chat"
            await socket.send_bytes(b"hello" * 50_000)
            assert await socket.receive_bytes() == b"HELLO" * 50_000
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{proxied.http.server.url}{proxied.pod}/other?status=403", ssl=tls)
        assert refused.value.status == 403


async def test_the_verb_is_the_methods_and_the_name_is_as_it_was_written(proxied: Proxied) -> None:
    http = proxied.http
    await proxied.allow("reader", ["pods/proxy"], ["get"])
    await proxied.allow("narrow", ["pods/proxy"], ["get", "create"], names=[f"web:{proxied.port}"])
    await proxied.allow("getter", ["pods"], ["*"])
    for user, method, path, status in (
        ("reader", "GET", f"{proxied.pod}/x", 200),
        ("reader", "POST", f"{proxied.pod}/x", 403),
        ("reader", "OPTIONS", f"{proxied.pod}/x", 403),
        ("narrow", "POST", f"{proxied.pod}/x", 200),
        ("narrow", "GET", f"{PODS}/http:web:{proxied.port}/proxy/x", 403),
        ("getter", "GET", f"{proxied.pod}/x", 403),
        ("nobody", "GET", f"{proxied.pod}/x", 403),
    ):
        got = await http(method, path, Impersonate_User=user)
        assert got.status == status, (user, method, path, got.body)
