"""The answer on a healthCheckNodePort, over loopback."""

import asyncio
import json
import socket

from pilotage.proxy.health import HealthChecks
from pilotage.testing.etcd import free_port


async def ask(port: int) -> tuple[str, object]:
    head, body = await fetch(port)
    return head[0], body


async def fetch(port: int) -> tuple[list[str], object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.decode().split("\r\n"), json.loads(body)


async def test_it_tells_whether_the_node_has_an_endpoint() -> None:
    checks, port = HealthChecks("127.0.0.1"), free_port()
    name = {"namespace": "default", "name": "web"}
    try:
        await checks.apply({"default/web": (port, 2)})
        assert await ask(port) == ("HTTP/1.1 200 OK", {"service": name, "localEndpoints": 2})
        assert "X-Load-Balancing-Endpoint-Weight: 2" in (await fetch(port))[0]
        await checks.apply({"default/web": (port, 0)})
        assert await ask(port) == ("HTTP/1.1 503 Service Unavailable", {"service": name, "localEndpoints": 0})
    finally:
        checks.close()


async def test_a_port_ends_with_its_service() -> None:
    checks, port = HealthChecks("127.0.0.1"), free_port()
    await checks.apply({"default/web": (port, 1)})
    await checks.apply({})
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


async def test_a_port_that_is_taken_does_not_stop_the_others() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken, free = holder.getsockname()[1], free_port()
        checks = HealthChecks("127.0.0.1")
        try:
            await checks.apply({"default/a": (taken, 1), "default/b": (free, 1)})
            assert (await ask(free))[0] == "HTTP/1.1 200 OK"
        finally:
            checks.close()
