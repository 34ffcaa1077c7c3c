"""Logs, exec, attach and port-forward: streams between a client and the agent of a pod's node.

Stands apart because these connections carry no objects. The server's part ends with authorisation and finding the node:
bytes and WebSocket messages are passed on as they are, so the framing (v5.channel.k8s.io, KEP-4006) is between kubectl
and the agent alone. Both sides' pace is the other's: a slow client slows the agent, nothing piles up here.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from types import TracebackType
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import WSMsgType, web

from pilotage.api.status import ApiError
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.pods import container_of
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.kit.tasks import wait_any

NODES = builtin("", "v1", "nodes")
AGENT_PORT = 10250  # the kubelet's; a node may publish another
CONNECT_TIMEOUT_S = 10.0
# One WebSocket message; kubectl and agents write at most 32 KiB at a time.
MESSAGE_BYTES_MAX = 1024 * 1024
HEARTBEAT_S = 30.0
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_LOG_PARAMETERS = ("follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes")
_EXEC_PARAMETERS = ("stdin", "stdout", "stderr", "tty")


class Streams:
    """Connections to agents; an async context manager that owns them."""

    def __init__(self, registry: Registry, tls: Callable[[], ssl.SSLContext]) -> None:
        self._registry = registry
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Streams:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def log(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """GET of `pods/<name>/log`: plain text, as long as it lasts."""
        pod = self._registry.get(call).document
        container = container_of(pod, request.query.get("container", ""))
        query = {key: request.query[key] for key in _LOG_PARAMETERS if key in request.query}
        url = f"{self._agent(pod)}/containerLogs/{_where(pod, container)}?{urlencode(query)}"
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache"})
        try:
            async with self._open().get(url) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, (await answer.content.read(4096)).decode(errors="replace"))
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if not response.prepared:
                raise _unreachable(pod, error) from error
            # Half a log has been sent: either side is gone, and the connection's end is all that can still be said.
            response.force_close()
        return response

    async def exec(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`pods/<name>/exec`."""
        return await self._process(request, call, "exec")

    async def attach(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`pods/<name>/attach`."""
        return await self._process(request, call, "attach")

    async def port_forward(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`pods/<name>/portforward`."""
        pod = self._registry.get(call).document
        query = [("port", port) for value in request.query.getall("ports", ()) for port in value.split(",")]
        metadata = pod["metadata"]
        path = f"portForward/{quote(metadata['namespace'])}/{quote(metadata['name'])}"
        return await self._relay(request, pod, f"{path}?{urlencode(query)}")

    async def _process(self, request: web.BaseRequest, call: Call, verb: str) -> web.StreamResponse:
        pod = self._registry.get(call).document
        container = container_of(pod, request.query.get("container", ""))
        query = [(key, request.query[key]) for key in _EXEC_PARAMETERS if key in request.query]
        query += [("command", value) for value in request.query.getall("command", ())]
        return await self._relay(request, pod, f"{verb}/{_where(pod, container)}?{urlencode(query)}")

    async def _relay(self, request: web.BaseRequest, pod: Document, path: str) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiError("BadRequest", "this needs a WebSocket connection (RFC 6455); SPDY is not supported")
        offered = [item.strip() for item in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        protocols = tuple(item for item in offered if item in _PROTOCOLS)
        if not protocols:
            raise ApiError("BadRequest", f"none of the WebSocket protocols {offered} is supported: use {_PROTOCOLS[0]}")
        try:
            async with self._open().ws_connect(
                f"{self._agent(pod)}/{path}", protocols=protocols, max_msg_size=MESSAGE_BYTES_MAX, autoclose=False
            ) as agent:
                chosen = (agent.protocol,) if agent.protocol else protocols[:1]
                client = web.WebSocketResponse(
                    protocols=chosen, max_msg_size=MESSAGE_BYTES_MAX, heartbeat=HEARTBEAT_S, autoclose=False
                )
                await client.prepare(request)
                with contextlib.suppress(ConnectionError):  # either side may vanish; the other is closed below
                    await wait_any(_pump(client, agent), _pump(agent, client))
                await client.close(code=agent.close_code or 1000)
                return client
        except aiohttp.WSServerHandshakeError as error:  # a ClientError too: it must come first
            raise _refusal(error.status, error.message) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(pod, error) from error

    def _agent(self, pod: Document) -> str:
        name = (pod.get("spec") or {}).get("nodeName")
        if not name:
            raise ApiError("BadRequest", f"pod {pod['metadata']['name']} does not have a host assigned")
        node = self._registry.cache(NODES).get(name)
        status = (node.document.get("status") or {}) if node is not None else {}
        address = next((a["address"] for a in status.get("addresses") or () if a.get("type") == "InternalIP"), None)
        if address is None:
            raise ApiError("InternalError", f"node {name} has no internal address to reach its agent at")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or AGENT_PORT
        return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls(), limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            )
        return self._session


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, sink: _Socket) -> None:
    """Pass messages on until the source closes."""
    while True:
        message = await source.receive()
        if message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        else:
            return


def _where(pod: Document, container: str) -> str:
    metadata = pod["metadata"]
    return "/".join(quote(part, safe="") for part in (metadata["namespace"], metadata["name"], container))


def _refusal(status: int, message: str) -> ApiError:
    reasons = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}
    return ApiError(reasons.get(status, "InternalError"), message.strip()[:1_000] or f"the agent answered {status}")


def _unreachable(pod: Document, error: Exception) -> ApiError:
    node = (pod.get("spec") or {}).get("nodeName")
    return ApiError("InternalError", f"error dialing the agent of node {node}: {str(error)[:300]}")
