"""Logs and shells, relayed to an agent that speaks the agreed protocols over real TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from pilotage.apiserver.certificates import Authority
from pilotage.client import load_kubeconfig
from pilotage.kit.upgrade import switch_protocols
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import PODS, Http, connected, pod

MERGE = "application/merge-patch+json"


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """An agent with one pod: its log counts, its shell echoes, a port answers in capitals."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    subject = dict(item[0] for item in tls.getpeercert()["subject"])
    assert subject["commonName"] == "kube-apiserver-kubelet-client"
    verb, *where = request.path.strip("/").split("/")
    if verb == "containerLogs":
        if where[2] == "silent":
            return web.Response(status=404, text="container has no log")
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(int(request.query["tailLines"])):
            await response.write(f"{'/'.join(where)} line {number}\n".encode())
        return response
    if request.headers.get("Upgrade") == "SPDY/3.1":
        return await capitals(request)
    if "refuse" in request.query.getall("command", ()):
        return web.Response(status=400, text="not this one")
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"))
    await socket.prepare(request)
    await socket.send_bytes(b"\x01" + " ".join([verb, *where, *request.query.getall("command", ())]).encode())
    async for message in socket:
        assert message.type is WSMsgType.BINARY
        if message.data == b"\x00exit":
            break
        await socket.send_bytes(message.data[:1] + message.data[1:].upper())
    await socket.send_bytes(b'\x03{"status":"Success"}')
    await socket.close()
    return socket


async def capitals(request: web.BaseRequest) -> web.StreamResponse:
    """After the upgrade, whatever comes goes back in capitals, until it says bye."""
    chosen = request.headers.getall("X-Stream-Protocol-Version")[0]
    headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": chosen}
    connection = await switch_protocols(request, headers)
    while data := await connection.read():
        await connection.write(data.upper())
        if data.endswith(b"bye"):
            break
    return connection.response


@asynccontextmanager
async def agent(http: Http, directory: Path) -> AsyncIterator[None]:
    """The agent of node n1, and a pod of two containers on it."""
    authority = await asyncio.to_thread(Authority.load_or_create, http.server.data_dir / "pki")
    authority.load_or_issue_server(directory, "agent", (), ("127.0.0.1",))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "agent.crt", directory / "agent.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=authority.certificate_pem.decode())
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await http("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}, "status": status})
    containers = [{"name": name, "image": "localhost/host"} for name in ("main", "side", "silent")]
    created = await http("POST", PODS, {**pod("a"), "spec": {"containers": containers, "nodeName": "n1"}})
    assert created.status == 201, created.body
    yield
    await runner.cleanup()


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with api_server() as server, connected(server) as client, agent(client, tmp_path):
        yield client


async def test_logs_are_passed_on(http: Http) -> None:
    got = await http("GET", f"{PODS}/a/log?container=side&tailLines=2")
    assert (got.status, got.headers["Content-Type"]) == (200, "text/plain")
    assert got.raw == b"default/a/side line 0\ndefault/a/side line 1\n"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "choose one of: [main side silent]"),
        ("?container=other", 400, "container other is not valid for pod a"),
        ("?container=silent", 404, "container has no log"),
    ],
)
async def test_logs_that_cannot_be_had(http: Http, query: str, status: int, words: str) -> None:
    got = await http("GET", f"{PODS}/a/log{query}")
    assert got.status == status and words in got.body["message"]


async def test_a_pod_without_a_node_has_no_log(http: Http) -> None:
    await http("POST", PODS, pod("b"))
    got = await http("GET", f"{PODS}/b/log")
    assert (got.status, got.body["message"]) == (400, "pod b does not have a host assigned")


async def test_an_agent_that_is_away_is_named(http: Http) -> None:
    endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}
    await http("PATCH", "/api/v1/nodes/n1/status", endpoint, Content_Type=MERGE)
    got = await http("GET", f"{PODS}/a/log?container=main")
    assert got.status == 500 and "error dialing the agent of node n1" in got.body["message"]


async def test_exec_carries_both_directions_and_the_end(http: Http) -> None:
    context = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    url = f"{http.server.url}{PODS}/a/exec?container=main&command=sh&command=-c&stdin=true&stdout=true"
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=context or True, protocols=("v5.channel.k8s.io",)) as socket,
    ):
        assert socket.protocol == "v5.channel.k8s.io"
        assert await socket.receive_bytes() == b"\x01exec default a main sh -c"
        await socket.send_bytes(b"\x00hello")
        assert await socket.receive_bytes() == b"\x00HELLO"
        await socket.send_bytes(b"\x00exit")
        assert await socket.receive_bytes() == b'\x03{"status":"Success"}'
        assert (await socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)


@asynccontextmanager
async def upgraded(
    http: Http, path: str, **headers: str
) -> AsyncIterator[tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The head of the answer to a POST that asks for SPDY, and the connection after it."""
    tls = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    host, port = http.server.url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    lines = [f"POST {path} HTTP/1.1", "Host: api", "Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    writer.write("\r\n".join((*lines, "", "")).encode())
    try:
        async with asyncio.timeout(20):
            yield await reader.readuntil(b"\r\n\r\n"), reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("what", ["exec?container=main&command=sh", "attach?container=main", "portforward"])
async def test_spdy_passes_as_it_is_both_ways_in_any_amount(http: Http, what: str) -> None:
    path = f"{PODS}/a/{what}"
    async with upgraded(http, path, X_Stream_Protocol_Version="v4.channel.k8s.io") as (head, reader, writer):
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"x-stream-protocol-version: v4.channel.k8s.io" in head.lower()
        large = bytes(range(256)) * 8_000
        sending = asyncio.gather(_send(writer, large))
        assert await reader.readexactly(len(large)) == large.upper()
        await sending
        writer.write(b"good bye")
        assert await reader.read() == b"GOOD BYE"  # the agent ends, so does the client's connection


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def test_an_agents_refusal_of_an_upgrade_is_a_status(http: Http) -> None:
    got = await http(
        "GET",
        f"{PODS}/a/exec?container=main&command=refuse",
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Protocol="v5.channel.k8s.io",
    )
    assert (got.status, got.body["message"], got.reason) == (400, "not this one", "BadRequest")


async def test_port_forward_takes_spdy_inside_a_websocket(http: Http) -> None:
    context = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{http.server.url}{PODS}/a/portforward", ssl=context or True, protocols=("SPDY/3.1+portforward.k8s.io",)
        ) as socket,
    ):
        assert socket.protocol == "SPDY/3.1+portforward.k8s.io"
        assert await socket.receive_bytes() == b"\x01portForward default a"
        await socket.send_bytes(b"\x80\x03frame")
        assert await socket.receive_bytes() == b"\x80\x03FRAME"


WEB_SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Protocol": "v9.unknown",
}


@pytest.mark.parametrize(
    ("verbs", "upgrade", "allowed"),
    [
        (("get",), True, False),  # a WebSocket opens a shell: to get is not enough
        (("create",), True, False),  # and it is a GET
        (("get", "create"), True, True),
        (("create",), False, True),  # SPDY: a POST
        (("get",), False, False),
    ],
    ids=["get alone", "create alone", "both", "create for a POST", "get for a POST"],
)
async def test_who_may_open_a_shell(http: Http, verbs: tuple[str, ...], upgrade: bool, allowed: bool) -> None:
    subresources = ("exec", "attach", "portforward")
    rules = [{"apiGroups": [""], "resources": [f"pods/{one}" for one in subresources], "verbs": list(verbs)}]
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    await http("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }
    await http("POST", f"{rbac}/rolebindings", binding)
    for subresource in subresources:
        path = f"{PODS}/a/{subresource}?container=main&command=sh"
        if upgrade:
            got = await http("GET", path, Impersonate_User="jane", **WEB_SOCKET)
        else:
            got = await http("POST", path, Impersonate_User="jane")
        # Whoever is let in is then told that such a request opens nothing.
        assert (got.status, got.reason) == ((400, "BadRequest") if allowed else (403, "Forbidden")), got.body
        if not allowed:
            assert f'resource "pods/{subresource}"' in got.body["message"]


async def test_exec_needs_a_websocket_and_a_known_protocol(http: Http) -> None:
    got = await http("POST", f"{PODS}/a/exec?container=main&command=sh")
    assert got.status == 400 and "WebSocket" in got.body["message"]
    context = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(
                f"{http.server.url}{PODS}/a/exec?container=main&command=sh",
                ssl=context or True,
                protocols=("v9.example",),
            )
    assert caught.value.status == 400
