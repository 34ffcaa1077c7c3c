"""Requests through a real Envoy that was configured from Ingresses."""

import asyncio
import ipaddress
import json
import os
import random
import signal
import ssl
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.cluster.v3 import cluster_pb2

from pilotage.gateway.core.translate import Options, translate
from pilotage.xds import Resource, ResourceType, Snapshot
from pilotage.xds.core.stream import GATE_TIMEOUT_S

DEADLINE_S = 30.0


async def test_routes_by_host_and_path(harness: Any, http_backend: Any, service: Any, ingress: Any) -> None:
    async with http_backend("web") as web_port, http_backend("api") as api_port:
        await harness.apply(
            service("web", web_port),
            service("api", api_port),
            service("idle"),
            ingress(
                "shop",
                {
                    "shop.test/": "web",
                    "shop.test/api": "api",
                    "shop.test/idle": "idle",
                    "shop.test/gone": "gone",
                    "*.wild.test/": "api",
                },
            ),
        )
        status, answer = await harness.get("shop.test", "/x?y=1")
        assert (status, answer["backend"], answer["path"]) == (200, "web", "/x?y=1")
        assert (await harness.get("shop.test", "/api/v1"))[1]["backend"] == "api"
        assert (await harness.get("shop.test", "/apis"))[1]["backend"] == "web"
        assert (await harness.get("Shop.test:8080", "/api"))[1]["backend"] == "api"
        assert (await harness.get("a.wild.test", "/"))[1]["backend"] == "api"
        assert (await harness.get("a.wild.test:80", "/"))[1]["backend"] == "api"
        assert (await harness.get("a.b.wild.test", "/"))[0] == 404
        assert (await harness.get("other.test", "/"))[0] == 404
        assert (await harness.get("shop.test", "/idle"))[0] == 503
        assert (await harness.get("shop.test", "/gone"))[0] == 503
        assert (await harness.get("shop.test", "/api/../x"))[1]["backend"] == "web"


async def test_backend_sees_forwarded_headers_and_the_access_log_tells(
    harness: Any, http_backend: Any, service: Any, ingress: Any
) -> None:
    async with http_backend("web") as port:
        await harness.apply(service("web", port), ingress("shop", {"shop.test/": "web"}))
        _, answer = await harness.get("shop.test", "/?token=secret", **{"X-Forwarded-Host": "forged.test"})
        seen = answer["headers"]
        assert seen["host"] == "shop.test"
        assert seen["x-forwarded-host"] == "shop.test"
        assert seen["x-forwarded-proto"] == "http"
        # For a client on the loopback Envoy writes an address of the machine's instead.
        assert ipaddress.ip_address(seen["x-forwarded-for"])

    log = harness.envoy.run_dir / "access.log"
    async with asyncio.timeout(DEADLINE_S):  # Envoy flushes once a second
        while not (text := log.read_text()).endswith("\n"):
            await asyncio.sleep(0.05)
    entry = json.loads(text.splitlines()[0])
    assert (entry["host"], entry["path"], entry["status"]) == ("shop.test", "/", 200)
    assert (entry["cluster"], entry["route"], entry["listener"]) == ("default/web/80", "default/shop", "http")
    assert "secret" not in text


async def test_websocket_passes(harness: Any, http_backend: Any, service: Any, ingress: Any) -> None:
    async with http_backend("web") as port:
        await harness.apply(service("web", port), ingress("shop", {"/": "web"}))
        url = f"http://127.0.0.1:{await harness.port('http')}/chat"
        async with harness.client.ws_connect(url) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=DEADLINE_S) == "web: hello"


async def test_certificates_are_chosen_by_name_and_a_bad_secret_harms_nobody(
    harness: Any, http_backend: Any, service: Any, ingress: Any
) -> None:
    async with http_backend("web") as port:
        manifests = (
            service("web", port),
            ingress("one", {"one.test/": "web"}, tls={"one": ["one.test"]}, redirect=True),
            ingress("two", {"a.two.test/": "web"}, tls={"two": ["*.two.test"]}),
            ingress("bad", {"bad.test/": "web"}, tls={"bad": ["bad.test"]}),
            harness.authority.secret("two", "*.two.test"),
            '{"kind": "Secret", "metadata": {"name": "bad"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}',
        )
        result = await harness.apply(*manifests, harness.authority.secret("one", "one.test"))
        assert [problem.reason for problem in result.problems] == ["TLSSecretInvalid"]
        https = await harness.port("https")

        async def ask(host: str) -> tuple[str, bytes]:
            """What the backend saw as the protocol, and the certificate that the client verified."""
            context = harness.authority.context()
            reader, writer = await asyncio.open_connection("127.0.0.1", https, ssl=context, server_hostname=host)
            certificate = writer.get_extra_info("ssl_object").getpeercert(True)
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]["x-forwarded-proto"], certificate

        proto, first = await ask("one.test")
        assert proto == "https"
        assert (await ask("a.two.test"))[1] != first
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask("bad.test")
        assert (await harness.get("bad.test", "/"))[0] == 200  # its clear text is served all the same
        assert await harness.get("one.test:8080", "/x?y=1") == (308, "https://one.test:8443/x?y=1")

        # A renewed certificate reaches new connections without a change of listeners.
        updates = await harness.stat("listener_manager.listener_modified")
        await harness.apply(*manifests, harness.authority.secret("one", "one.test"))
        assert (await ask("one.test"))[1] != first
        assert await harness.stat("listener_manager.listener_modified") == updates


async def test_grpc_is_balanced_by_request_over_one_connection(
    harness: Any, backend_address: str, service: Any, ingress: Any
) -> None:
    async with AsyncExitStack() as stack:
        ports = []
        for name in ("a", "b", "c"):
            ports.append(await _grpc_backend(stack, backend_address, name.encode()))
        await harness.apply(
            service("orders", *ports, app_protocol="kubernetes.io/h2c"), ingress("orders", {"orders.test/": "orders"})
        )
        http = await harness.port("http")
        options = [("grpc.default_authority", "orders.test"), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{http}", options=options) as channel:
            call = channel.unary_unary("/test.Orders/Place")
            answers = [await call(b"", timeout=DEADLINE_S) for _ in range(60)]
        counts = {name: answers.count(name) for name in (b"a", b"b", b"c")}
        assert min(counts.values()) >= 5, counts
        assert await harness.stat("http.http.downstream_cx_total") == 1


async def _grpc_backend(stack: AsyncExitStack, address: str, name: bytes) -> int:
    async def place(_request: bytes, _context: Any) -> bytes:
        return name

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(place)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Orders", {"Place": handler}),))
    port: int = server.add_insecure_port(f"{address}:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return port


async def test_scaling_under_traffic_fails_no_request_and_touches_endpoints_only(
    harness: Any, http_backend: Any, service: Any, ingress: Any
) -> None:
    route = ingress("shop", {"shop.test/": "web"})
    async with AsyncExitStack() as backends:
        first = await backends.enter_async_context(http_backend("first"))
        await harness.apply(service("web", first), route)
        http = await harness.port("http")
        before = [
            await harness.stat(f"{name}.update_success") for name in ("listener_manager.lds", "http.http.rds.http")
        ]
        answers: list[tuple[int, str]] = []
        stopping = asyncio.Event()

        async def load() -> None:
            while not stopping.is_set():
                async with harness.client.get(f"http://127.0.0.1:{http}/", headers={"Host": "shop.test"}) as response:
                    body = await response.json() if response.status == 200 else {"backend": await response.text()}
                    answers.append((response.status, body["backend"]))

        async def answered_by(name: str) -> None:
            start = len(answers)
            async with asyncio.timeout(DEADLINE_S):
                while not any(backend == name for _, backend in answers[start:]):
                    await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for round_ in range(3):
                async with http_backend(f"new-{round_}") as extra, http_backend(f"more-{round_}") as more:
                    await harness.apply(service("web", first, extra, more), route)
                    await answered_by(f"new-{round_}")
                    await answered_by(f"more-{round_}")
                    # Removed from the endpoints first, stopped after the acknowledgement: the order a drain keeps.
                    await harness.apply(service("web", first), route)
            stopping.set()
        assert len(answers) > 50
        assert [answer for answer in answers if answer[0] != 200] == []
        after = [
            await harness.stat(f"{name}.update_success") for name in ("listener_manager.lds", "http.http.rds.http")
        ]
        assert after == before


async def test_a_dead_endpoint_is_skipped(harness: Any, http_backend: Any, service: Any, ingress: Any) -> None:
    async with http_backend("gone") as dead:
        pass
    async with http_backend("alive") as alive:
        await harness.apply(service("web", alive, dead), ingress("shop", {"/": "web"}))
        for _ in range(20):
            assert (await harness.get("any.test", "/"))[1]["backend"] == "alive"


async def test_refused_resource_is_named_and_its_neighbours_work(
    harness: Any, http_backend: Any, service: Any, ingress: Any
) -> None:
    async with http_backend("web") as port:
        result = await harness.apply(service("web", port), ingress("shop", {"/": "web"}))
        good = translate(result.ir, Options())
        bad = cluster_pb2.Cluster(name="broken", lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED)
        state = await harness.publish(*good, Resource.of(ResourceType.CLUSTER, "broken", bad))
        assert [(item.type, item.name) for item in state.rejected] == [(ResourceType.CLUSTER, "broken")]
        assert "cluster provided LB" in state.rejected[0].message
        assert (await harness.get("any.test", "/"))[0] == 200
        assert (await harness.publish(*good)).rejected == ()


async def test_envoy_is_restarted_with_its_routes(harness: Any, http_backend: Any, service: Any, ingress: Any) -> None:
    async with http_backend("web") as port:
        await harness.apply(service("web", port), ingress("shop", {"/": "web"}))
        assert (await harness.get("any.test", "/"))[0] == 200
        os.kill(harness.pids[0], signal.SIGKILL)
        await harness.wait_state(lambda state: not state.connected)
        await harness.wait_state(lambda state: state.connected and state.applied == harness.version)
        assert len(harness.pids) == 2
        assert (await harness.get("any.test", "/"))[0] == 200


async def test_services_that_come_and_go_faster_than_envoy_warms_them(
    harness: Any, http_backend: Any, service: Any, ingress: Any
) -> None:
    dice = random.Random(7)
    options = Options()
    async with http_backend("web") as port:
        for _ in range(60):
            names = dice.sample(("a", "b", "c", "d"), dice.randint(0, 4))
            routes = {f"{name}.test/": name for name in names}
            protocol = dice.choice(("", "kubernetes.io/h2c"))
            result = harness.translate(
                ingress("all", routes), *(service(name, port, app_protocol=protocol) for name in names)
            )
            harness.version += 1
            harness.server.publish(Snapshot.of(harness.version, translate(result.ir, options)))
            await asyncio.sleep(dice.choice((0, 0.001, 0.003)))
        # Far below the time after which the server stops waiting for an Envoy: nothing was left hanging.
        async with asyncio.timeout(GATE_TIMEOUT_S / 2):
            await harness.apply(service("web", port), ingress("shop", {"shop.test/": "web"}))
        assert (await harness.get("shop.test", "/"))[0] == 200
        assert (await harness.get("a.test", "/"))[0] == 404
        assert await harness.stat("cluster_manager.active_clusters") == 2  # this one, and ours for xDS


async def test_envoy_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from pilotage.gateway.envoy import EnvoyConfig, run_envoy
run_dir = pathlib.Path({str(tmp_path)!r})
config = EnvoyConfig(run_dir=run_dir, xds_path=run_dir / "xds.sock", node_id="test", concurrency=1)
asyncio.run(run_envoy(config, on_start=lambda pid: print(pid, flush=True)))
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    async with asyncio.timeout(DEADLINE_S):
        while not (tmp_path / "admin.sock").exists():
            await asyncio.sleep(0.01)
        parent.kill()
        await parent.wait()
        while _runs(child):
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped by someone else."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
