"""The proxy subresources: HTTP through the server to a pod, a service's pod, or a node.

Stands apart because what is carried is somebody else's protocol. The path after `proxy` and the query go on untouched,
credentials and hop-by-hop headers do not; redirects come back inside the proxy's path. Any upgrade (WebSocket above
all) becomes a tunnel. Where a request may lead is decided in `core.targets`.
Differs from kube-apiserver: links inside HTML are left alone, because rewriting a page's text breaks as many as it
mends; https targets are, as there, not verified, since a pod's certificate is its own affair, but agents are.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError, not_found
from pilotage.apiserver.agents import NODES, Agents
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.core.targets import (
    Target,
    forwarded_headers,
    node_target,
    pod_target,
    returned_headers,
    service_targets,
    split_name,
)
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import PODS, builtin
from pilotage.apiserver.tunnel import CONNECT_TIMEOUT_S, Peer, PeerError, Refused, tunnel, upgrade_of

SERVICES = builtin("", "v1", "services")
SLICES = builtin("discovery.k8s.io", "v1", "endpointslices")
# A target that says nothing for so long, in the middle of an answer or before it, is given up.
IDLE_TIMEOUT_S = 4 * 3600.0
_OF_SERVICE = "kubernetes.io/service-name"
_BODILESS = ("GET", "HEAD", "OPTIONS")
_METHODS = frozenset((*_BODILESS, "POST", "PUT", "PATCH", "DELETE"))


class Proxy:
    """Carries requests; an async context manager that owns its connections."""

    def __init__(self, registry: Registry, agents: Agents) -> None:
        self._registry = registry
        self._agents = agents
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def pod(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`pods/[scheme:]<name>[:port]/proxy/…`."""
        named = split_name("pod", call.name)
        target = pod_target(self._find(PODS, call.namespace, named.name), named)
        return await self._carry(request, target, self._unverified)

    async def service(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`services/[scheme:]<name>[:port]/proxy/…`: one of its ready pods, at random."""
        named = split_name("service", call.name)
        service = self._find(SERVICES, call.namespace, named.name)
        slices = [
            record.document
            for record in self._registry.cache(SLICES).scan(call.namespace)
            if record.labels.get(_OF_SERVICE) == named.name
        ]
        targets = service_targets(service, slices, self._pods(call.namespace, slices), named)
        return await self._carry(request, random.choice(targets), self._unverified)  # noqa: S311

    async def node(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """`nodes/[scheme:]<name>[:port]/proxy/…`: the node's agent, or another port of the node."""
        named = split_name("node", call.name)
        agent = self._agents.of_node(self._find(NODES, "", named.name))
        target, is_agent = node_target(agent.host, agent.port, named)
        return await self._carry(request, target, self._agents.tls if is_agent else self._unverified)

    def _find(self, resource: Resource, namespace: str, name: str) -> Document:
        record = self._registry.cache(resource).get(f"{namespace}/{name}" if resource.namespaced else name)
        if record is None:
            raise not_found(resource.plural, name)
        return record.document

    def _pods(self, namespace: str, slices: Sequence[Document]) -> dict[str, Document]:
        cache = self._registry.cache(PODS)
        names = {
            (endpoint.get("targetRef") or {}).get("name", "")
            for each in slices
            for endpoint in each.get("endpoints") or ()
        }
        found = {name: cache.get(f"{namespace}/{name}") for name in names}
        return {name: record.document for name, record in found.items() if record is not None}

    async def _carry(self, request: web.BaseRequest, target: Target, tls: ssl.SSLContext) -> web.StreamResponse:
        if request.method not in _METHODS:
            raise ApiError("MethodNotAllowed", f"{request.method[:20]} is not carried")
        prefix, rest = _split_path(request)
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        if not rest and not upgrade_of(request):
            # So that the relative links of what is there resolve inside the proxy.
            return web.Response(status=301, headers={"Location": f"{prefix}/{query}"})
        path = f"{rest or '/'}{query}"
        headers = forwarded_headers(
            request.headers.items(), host=request.host, prefix=unquote(prefix), client=request.remote or ""
        )
        if upgrade_of(request):
            return await self._tunnel(request, target, tls, path, headers)
        return await self._request(request, target, tls, path, headers, prefix)

    async def _tunnel(
        self, request: web.BaseRequest, target: Target, tls: ssl.SSLContext, path: str, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        peer = Peer(host=target.host, port=target.port, tls=tls if target.scheme == "https" else None)
        try:
            answer = await tunnel(request, peer, path, headers)
        except PeerError as error:
            raise _unreachable(target, error) from error
        if isinstance(answer, Refused):
            kind = next((value for key, value in answer.headers if key.lower() == "content-type"), "text/plain")
            return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": kind})
        return answer

    async def _request(
        self,
        request: web.BaseRequest,
        target: Target,
        tls: ssl.SSLContext,
        path: str,
        headers: list[tuple[str, str]],
        prefix: str,
    ) -> web.StreamResponse:
        # aiohttp has decoded a compressed body on its way in: neither its coding nor its length are true any more.
        coded = "content-encoding" in {key.lower() for key, _ in headers}
        if coded:
            headers = [pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length")]
        body = request.content if request.body_exists and request.method not in _BODILESS else None
        response: web.StreamResponse | None = None
        try:
            async with self._open().request(
                request.method,
                URL(f"{target.scheme}://{target.authority}{path}", encoded=True),
                headers=headers,
                data=body,
                ssl=tls,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                returned = returned_headers(answer.headers.items(), target=target, prefix=unquote(prefix))
                response = _response(answer.status, answer.reason, returned)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if response is None or not response.prepared:
                raise _unreachable(target, error) from error
            response.force_close()  # half an answer has been sent; its end is all that can still be said
            if request.transport is not None:
                request.transport.abort()
        return response

    @cached_property
    def _unverified(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                # Without a jar: one user's cookies are not the next one's.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=IDLE_TIMEOUT_S),
            )
        return self._session


def _response(status: int, reason: str | None, headers: list[tuple[str, str]]) -> web.StreamResponse:
    response = web.StreamResponse(status=status, reason=reason)
    for key, value in headers:
        response.headers.add(key, value)
    return response


def _split_path(request: web.BaseRequest) -> tuple[str, str]:
    """The path as it was sent: up to and with `proxy`, and after it ("" or from its slash on)."""
    parts = request.rel_url.raw_path.split("/")
    # /api/v1/namespaces/<namespace>/<plural>/<name>/proxy, or /api/v1/nodes/<name>/proxy
    count = 8 if parts[3:4] == ["namespaces"] else 6
    if len(parts) < count or parts[count - 1] != "proxy":
        raise ApiError("NotFound", "the server could not find the requested resource")
    rest = "/".join(parts[count:])
    return "/".join(parts[:count]), f"/{rest}" if len(parts) > count else ""


def _unreachable(target: Target, error: Exception) -> ApiError:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    why = f"connect: {os.strerror(number).lower()}" if number else str(cause)[:300] or "timed out"
    return ApiError("ServiceUnavailable", f"error trying to reach service: dial tcp {target.authority}: {why}")
