"""Logs, exec, attach and port-forward: streams between a client and the agent of a pod's node.

Stands apart because these connections carry no objects. The server's part ends with authorisation and finding the node:
a log is passed on as it comes, an upgraded connection byte by byte (`tunnel`), so that its protocol is between kubectl
and the agent alone: the channels of KEP-4006, or SPDY, bare or inside a WebSocket. Both sides' pace is the other's: a
slow client slows the agent, nothing piles up here.
"""

from __future__ import annotations

from types import TracebackType
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from pilotage.api.status import ApiError
from pilotage.apiserver.agents import Agents
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.log_options import log_query
from pilotage.apiserver.core.pods import container_of
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.tunnel import CONNECT_TIMEOUT_S, PeerError, Refused, tunnel, upgrade_of

# Of the upgrade request; extensions are left out: compressing what never leaves the machine room costs more.
_HANDSHAKE = ("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "X-Stream-Protocol-Version")
_EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_FORWARD_PROTOCOLS = ("SPDY/3.1+portforward.k8s.io", *_EXEC_PROTOCOLS)
_EXEC_PARAMETERS = ("stdin", "stdout", "stderr", "tty")


class Streams:
    """Connections to agents; an async context manager that owns them."""

    def __init__(self, registry: Registry, agents: Agents) -> None:
        self._registry = registry
        self._agents = agents
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
        query = log_query(call.name, request.query)
        container = container_of(pod, request.query.get("container", ""))
        peer = self._agents.of_pod(pod)
        url = f"https://{peer.authority}/containerLogs/{_where(pod, container)}?{urlencode(query)}"
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache"})
        try:
            async with self._open().get(url) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.content.read(4096))
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
        return await self._upgrade(request, pod, f"{path}?{urlencode(query)}", _FORWARD_PROTOCOLS)

    async def _process(self, request: web.BaseRequest, call: Call, verb: str) -> web.StreamResponse:
        pod = self._registry.get(call).document
        container = container_of(pod, request.query.get("container", ""))
        query = [(key, request.query[key]) for key in _EXEC_PARAMETERS if key in request.query]
        query += [("command", value) for value in request.query.getall("command", ())]
        path = f"{verb}/{_where(pod, container)}?{urlencode(query)}"
        return await self._upgrade(request, pod, path, _EXEC_PROTOCOLS)

    async def _upgrade(
        self, request: web.BaseRequest, pod: Document, path: str, protocols: tuple[str, ...]
    ) -> web.StreamResponse:
        match upgrade_of(request).lower():
            case "websocket":
                offered = [item.strip() for item in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
                if not set(offered) & set(protocols):
                    message = f"none of the WebSocket protocols {offered[:8]} is supported: use {protocols[0]}"
                    raise ApiError("BadRequest", message)
            case "spdy/3.1":
                pass  # the agent chooses among the X-Stream-Protocol-Versions
            case _:
                raise ApiError("BadRequest", "Upgrade request required: WebSocket (RFC 6455) or SPDY/3.1")
        handshake = [(key, value) for key in _HANDSHAKE for value in request.headers.getall(key, ())]
        try:
            answer = await tunnel(request, self._agents.of_pod(pod), f"/{path}", handshake)
        except PeerError as error:
            raise _unreachable(pod, error) from error
        if isinstance(answer, Refused):
            raise _refusal(answer.status, answer.body)
        return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._agents.tls, limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            )
        return self._session


def _where(pod: Document, container: str) -> str:
    metadata = pod["metadata"]
    return "/".join(quote(part, safe="") for part in (metadata["namespace"], metadata["name"], container))


def _refusal(status: int, body: bytes) -> ApiError:
    reasons = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}
    message = body.decode(errors="replace").strip()[:1_000]
    return ApiError(reasons.get(status, "InternalError"), message or f"the agent answered {status}")


def _unreachable(pod: Document, error: Exception) -> ApiError:
    node = (pod.get("spec") or {}).get("nodeName")
    return ApiError("InternalError", f"error dialing the agent of node {node}: {str(error)[:300]}")
