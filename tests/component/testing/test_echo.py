"""The echo program as a process: all four protocols, chains of servers, and the orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest

from pilotage.testing.echo.upstream import Call, perform
from pilotage.testing.etcd import free_port

PROGRAM = (sys.executable, "-m", "pilotage.testing.echo")


@dataclass
class Server:
    process: asyncio.subprocess.Process
    ports: dict[str, int]

    def url(self, scheme: str, path: str = "") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}{path}"


@asynccontextmanager
async def server(*flags: str, pod: str = "pod-1") -> AsyncIterator[Server]:
    environment = {**os.environ, "POD_NAME": pod, "NODE_NAME": "n1", "NODE_ZONE": "zone-a"}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "--listen", "127.0.0.1", *flags, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            first = json.loads(await process.stdout.readline())
        yield Server(process, first["listening"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(url: str, **arguments: Any) -> dict[str, Any]:
    return await perform(Call(url=url, timeout_s=10, **arguments))


async def run(*words: str) -> tuple[int, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(*PROGRAM, *words, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(output)


async def until(condition: Callable[[], Any], *, deadline_s: float = 10.0) -> Any:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if result := await condition():
            return result
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not come true in time")


@pytest.mark.parametrize("protocol", ["http", "grpc", "tcp", "udp"])
async def test_each_protocol_says_who_answered_and_what_it_saw(protocol: str) -> None:
    async with server(f"--{protocol}", "0") as echo:
        outcome = await ask(echo.url(protocol))
    assert "error" not in outcome
    assert outcome["address"] == f"127.0.0.1:{echo.ports[protocol]}"
    assert outcome["answer"]["answered_by"] == {"pod": "pod-1", "node": "n1", "zone": "zone-a"}
    assert outcome["answer"]["protocol"] == protocol
    assert outcome["answer"]["request"]["remote"].startswith("127.0.0.1:")


async def test_http_shows_the_request_as_it_arrived() -> None:
    async with server("--http", "0") as echo:
        outcome = await ask(
            echo.url("http", "/cart?item=3"), headers={"Host": "shop.example.test", "X-A": "b"}, body=b"xyz"
        )
    request = outcome["answer"]["request"]
    assert (request["method"], request["path"], request["query"]) == ("GET", "/cart", {"item": "3"})
    assert request["host"] == "shop.example.test"
    assert request["headers"]["x-a"] == "b"
    assert request["body_bytes"] == 3


async def test_grpc_shows_message_and_authority_and_reports_health() -> None:
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with server("--grpc", "0") as echo:
        outcome = await ask(
            "grpc://orders.example.test", connect=f"127.0.0.1:{echo.ports['grpc']}", body=b'{"order": 7}'
        )
        assert outcome["status"] == "OK"
        assert outcome["answer"]["request"]["message"] == {"order": 7}
        assert outcome["answer"]["request"]["method"] == "/pilotage.echo.v1.Echo/Call"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{echo.ports['grpc']}") as channel:
            request = health_pb2.HealthCheckRequest(service="pilotage.echo.v1.Echo")
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
            stream = channel.unary_stream("/pilotage.echo.v1.Echo/Stream")(b'{"count": 3}')
            indices = [json.loads(message)["index"] async for message in stream]
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert indices == [0, 1, 2]


async def test_the_answer_holds_the_whole_chain() -> None:
    async with server("--tcp", "0", "--udp", "0", "--grpc", "0", pod="db-0") as db:
        calls = [word for scheme in ("tcp", "udp", "grpc") for word in ("--call", db.url(scheme))]
        async with server("--http", "0", *calls, pod="api-1") as api:
            async with server("--http", "0", "--call", api.url("http", "/v1"), pod="web-1") as web:
                answer = (await ask(web.url("http"), headers={"X-Request-Id": "42"}))["answer"]
    (to_api,) = answer["upstreams"]
    assert to_api["answer"]["answered_by"]["pod"] == "api-1"
    assert to_api["answer"]["request"]["headers"]["x-request-id"] == "42"
    assert [call["answer"]["answered_by"]["pod"] for call in to_api["answer"]["upstreams"]] == ["db-0"] * 3
    assert [call["answer"]["protocol"] for call in to_api["answer"]["upstreams"]] == ["tcp", "udp", "grpc"]


async def test_a_broken_link_is_named_and_the_rest_still_answers() -> None:
    async with server("--http", "0", "--call", "http://127.0.0.1:1/", "--call", "tcp://no-such-name.invalid:1") as echo:
        outcome = await ask(echo.url("http"))
    refused, unknown = outcome["answer"]["upstreams"]
    assert outcome["status"] == 200
    assert "ConnectionRefused" in refused["error"] or "Connect call failed" in refused["error"]
    assert "error" in unknown


async def test_servers_that_call_each_other_stop_somewhere() -> None:
    port = str(free_port())
    async with server("--http", port, "--call", f"http://127.0.0.1:{port}/") as echo:
        text = json.dumps(await ask(echo.url("http")))
    assert text.count('"answered_by"') == 9
    assert "in a circle" in text


async def test_status_and_delay_can_be_asked_for() -> None:
    async with server("--http", "0") as echo:
        outcome = await ask(echo.url("http", "/?status=503&delay_ms=50"))
        nonsense = await ask(echo.url("http", "/?status=none"))
    assert outcome["status"] == 503
    assert outcome["duration_ms"] >= 50
    assert nonsense["status"] == 400


async def test_exit_crashes_with_the_code_asked_for() -> None:
    async with server("--http", "0") as echo:
        assert (await ask(echo.url("http", "/exit?code=7")))["status"] == 200
        async with asyncio.timeout(10):
            assert await echo.process.wait() == 7


async def test_after_sigterm_readiness_goes_first_and_open_requests_finish() -> None:
    async with server("--http", "0", "--drain", "20") as echo:
        assert (await ask(echo.url("http", "/readyz")))["status"] == 200
        echo.process.send_signal(signal.SIGTERM)

        async def unready() -> bool:
            return (await ask(echo.url("http", "/readyz")))["status"] == 503

        await until(unready)
        assert (await ask(echo.url("http", "/healthz")))["status"] == 200
        assert (await ask(echo.url("http", "/")))["status"] == 200
        echo.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await echo.process.wait() == 1


async def test_an_open_request_is_answered_before_the_end() -> None:
    async with server("--http", "0") as echo:
        reader, writer = await asyncio.open_connection("127.0.0.1", echo.ports["http"])
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", echo.ports["http"])
        writer.write(b"GET /?delay_ms=700 HTTP/1.1\r\nHost: a\r\n\r\n")
        idle_writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await idle_reader.readuntil(b"}\n")
        echo.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await idle_reader.read() == b""
            answer = await reader.read()
            assert await echo.process.wait() == 0
        writer.close()
        idle_writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in answer


async def test_an_idle_server_ends_at_once() -> None:
    async with server("--http", "0", "--grpc", "0", "--tcp", "0", "--udp", "0") as echo:
        started = time.monotonic()
        echo.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await echo.process.wait() == 0
        assert time.monotonic() - started < 5


async def test_garbage_is_answered_and_the_server_lives() -> None:
    async with server("--http", "0") as echo:
        reader, writer = await asyncio.open_connection("127.0.0.1", echo.ports["http"])
        writer.write(b"\x16\x03\x01 garbage\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert b"HTTP/1.1 " in answer
        assert (await ask(echo.url("http")))["status"] == 200


async def test_the_call_command_prints_the_answer() -> None:
    async with server("--http", "0") as echo:
        code, outcome = await run("call", echo.url("http", "/x"), "-H", "X-A: b")
        assert code == 0
        assert outcome["answer"]["request"]["headers"]["x-a"] == "b"
        code, summary = await run("call", echo.url("http"), "--count", "20", "--parallel", "5")
        assert code == 0
        assert summary["pods"] == {"pod-1": 20}
    code, outcome = await run("call", echo.url("http"))
    assert code == 1
    assert "error" in outcome


async def test_the_resolve_command_walks_the_search_list(tmp_path: Path) -> None:
    class Authority(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            name = query.question[0].name
            if str(name) == "legacy.default.svc.cluster.local.":
                target = "legacy.example.test."
                response.answer.append(dns.rrset.from_text(name, 5, "IN", "CNAME", target))
                response.answer.append(dns.rrset.from_text(target, 9, "IN", "A", "192.0.2.7"))
            else:
                response.set_rcode(dns.rcode.NXDOMAIN)
            self.transport.sendto(response.to_wire(), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Authority, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\nsearch other.svc.cluster.local default.svc.cluster.local\noptions ndots:5\n")
    try:
        code, outcome = await run("resolve", "legacy", "--resolv-conf", str(path), "--port", str(port))
        assert code == 0
        assert [(step["name"], step["rcode"]) for step in outcome["asked"]] == [
            ("legacy.other.svc.cluster.local.", "NXDOMAIN"),
            ("legacy.default.svc.cluster.local.", "NOERROR"),
        ]
        assert [(r["type"], r["data"]) for r in outcome["records"]] == [
            ("CNAME", "legacy.example.test."),
            ("A", "192.0.2.7"),
        ]
        assert outcome["canonical_name"] == "legacy.example.test."
        code, outcome = await run("resolve", "nothing", "--resolv-conf", str(path), "--port", str(port))
        assert code == 1
        assert [step["name"] for step in outcome["asked"]][-1] == "nothing."
    finally:
        transport.close()
