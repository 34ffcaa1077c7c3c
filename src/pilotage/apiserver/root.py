"""Paths that are no resource: discovery, OpenAPI, version, health, metrics.

Stands apart from the front because none of it touches objects. Documents are built when first asked for and kept as
bytes until the set of resources changes; OpenAPI, which takes tens of milliseconds, is built off the loop's thread.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
from aiohttp import web

from pilotage.api.catalogue import Resource
from pilotage.api.schema import KUBERNETES_VERSION
from pilotage.api.status import ApiError
from pilotage.apiserver import responses
from pilotage.apiserver.core import discovery, openapi, openapi_protobuf
from pilotage.apiserver.core.custom_resource import kind_of
from pilotage.apiserver.core.negotiation import Form, representation
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.resources import Resources
from pilotage.telemetry.metrics import exposition

_encode = msgspec.json.Encoder().encode
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

Check = Callable[[], str | None]  # the reason for being unwell, None when all is well


class Root:
    """Answers everything outside `/api/<version>/…` and `/apis/<group>/<version>/…`."""

    def __init__(
        self,
        resources: Resources,
        advertise: str,
        checks: Mapping[str, Check],
        published: Mapping[str, tuple[str, bytes]] = MappingProxyType({}),
    ) -> None:
        self._resources = resources
        self._advertise = advertise
        self._checks = checks
        self._published = published  # path → media type and content of what never changes
        self._cached: dict[str, bytes] = {}
        self._cached_version = -1
        # Path → the resources a document was made of, and its bytes: a new definition leaves the others' alone.
        self._openapi: dict[str, tuple[tuple[Resource, ...], bytes]] = {}
        self._openapi_lock = asyncio.Lock()

    async def handle(self, request: web.BaseRequest, asked: Route) -> web.StreamResponse:
        """One request; raises ApiError NotFound or MethodNotAllowed."""
        if request.method not in ("GET", "HEAD"):
            raise ApiError("MethodNotAllowed", "only GET is allowed here")
        if self._cached_version != self._resources.version:
            self._cached.clear()
            self._cached_version = self._resources.version
            paths = {_openapi_path(resource.group, resource.version) for resource in self._resources.all()}
            self._openapi = {path: kept for path, kept in self._openapi.items() if path in paths}
        if asked.path in self._published:
            media_type, content = self._published[asked.path]
            headers = {"Content-Type": media_type, "Cache-Control": "public, max-age=3600"}
            return web.Response(body=content, headers=headers)
        parts = [part for part in asked.path.split("/") if part]
        match parts:
            case []:
                return responses.document({"paths": self._paths()})
            case ["version"]:
                return responses.document(_version())
            case ["livez" | "readyz" | "healthz" as endpoint, *name] if len(name) < 2:
                return self._health(endpoint, name[0] if name else "", verbose="verbose" in request.query)
            case ["metrics"]:
                return web.Response(body=exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})
            case ["openapi", "v2"]:
                return await self._openapi_v2(request)
            case ["openapi", "v3"]:
                return await self._openapi_index()
            case ["openapi", "v3", *rest]:
                return await self._openapi_v3(request, "/".join(rest))
            case ["api" | "apis", *_]:
                return await self._discovery(request, parts)
        raise ApiError("NotFound", "the server could not find the requested resource")

    def _paths(self) -> list[str]:
        paths = ["/api", "/api/v1", "/apis"]
        for group, versions in self._resources.group_versions().items():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
        return [
            *self._published,
            *sorted(paths),
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]

    def _health(self, endpoint: str, name: str, *, verbose: bool) -> web.Response:
        checks = self._checks if not name else {name: self._checks[name]} if name in self._checks else None
        if checks is None:
            raise ApiError("NotFound", f"there is no check called {name[:80]!r}")
        lines, well = [], True
        for label, check in checks.items():
            reason = check()
            well = well and reason is None
            lines.append(f"[+]{label} ok" if reason is None else f"[-]{label} failed: {reason}")
        if well and not verbose:
            return responses.text("ok")
        lines.append(f"{endpoint} check {'passed' if well else 'failed'}")
        return responses.text("\n".join(lines) + "\n", status=200 if well else 500)

    async def _discovery(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        accepted = representation(request.headers.get("Accept", ""))
        aggregated = accepted is not None and accepted.form is Form.DISCOVERY and len(parts) == 1
        key = "/".join(parts) + ("+aggregated" if aggregated else "")
        data = self._cached.get(key)
        if data is None:
            document = self._discovery_document(parts, aggregated=aggregated)
            data = self._cached[key] = _encode(document)
        content_type = _AGGREGATED if aggregated else responses.JSON
        etag = f'"{openapi.content_hash(data)}"'
        if aggregated and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        response = responses.json(data, content_type=content_type, headers={"ETag": etag, "Vary": "Accept"})
        return await responses.compress(request, response)

    def _discovery_document(self, parts: list[str], *, aggregated: bool) -> Document:
        groups = self._resources.group_versions()
        match parts:
            case ["api"]:
                return (
                    discovery.aggregated(groups, core=True) if aggregated else discovery.core_versions(self._advertise)
                )
            case ["apis"]:
                return discovery.aggregated(groups, core=False) if aggregated else discovery.group_list(groups)
            case ["api", "v1"]:
                return discovery.resource_list("v1", groups[""]["v1"])
            case ["apis", group] if group in groups and group:
                return discovery.group_document(group, groups[group])
            case ["apis", group, version] if group and version in groups.get(group, ()):
                return discovery.resource_list(f"{group}/{version}", groups[group][version])
        raise ApiError("NotFound", "the server could not find the requested resource")

    async def _openapi_index(self) -> web.Response:
        groups = self._resources.group_versions()
        # The address carries a hash of what will be served: of built-in kinds the version decides that, of custom ones
        # their definition. Clients keep a document for as long as its address stays.
        hashes = {
            path: openapi.content_hash(f"{KUBERNETES_VERSION}/{path}/{_generation(groups[group][version])}".encode())
            for group, versions in groups.items()
            for version in versions
            for path in (_openapi_path(group, version),)
        }
        return responses.document(openapi.paths_index(groups, hashes))

    async def _openapi_v3(self, request: web.BaseRequest, path: str) -> web.Response:
        groups = self._resources.group_versions()
        for group, versions in groups.items():
            for version, resources in versions.items():
                if _openapi_path(group, version) == path:
                    async with self._openapi_lock:
                        kept = self._openapi.get(path)
                        if kept is None or kept[0] != resources:
                            data = await asyncio.to_thread(openapi.v3_document, resources, f"v{KUBERNETES_VERSION}")
                            kept = self._openapi[path] = (resources, data)
                    return await self._openapi_answer(request, kept[1])
        raise ApiError("NotFound", "the server could not find the requested resource")

    async def _openapi_v2(self, request: web.BaseRequest) -> web.Response:
        as_protobuf = any(name in request.headers.get("Accept", "") for name in openapi_protobuf.ASKED_FOR)
        async with self._openapi_lock:
            if "openapi/v2" not in self._cached:
                self._cached["openapi/v2"] = await asyncio.to_thread(
                    openapi.v2_document, self._resources.all(), f"v{KUBERNETES_VERSION}"
                )
            data = self._cached["openapi/v2"]
            if as_protobuf:
                if "openapi/v2+protobuf" not in self._cached:
                    self._cached["openapi/v2+protobuf"] = await asyncio.to_thread(
                        lambda: openapi_protobuf.encode(msgspec.json.decode(data))
                    )
                data = self._cached["openapi/v2+protobuf"]
        content_type = openapi_protobuf.MEDIA_TYPE if as_protobuf else responses.JSON
        return await self._openapi_answer(request, data, content_type)

    async def _openapi_answer(
        self, request: web.BaseRequest, data: bytes, content_type: str = responses.JSON
    ) -> web.Response:
        headers = {"ETag": f'"{openapi.content_hash(data)}"', "Vary": "Accept"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return await responses.compress(request, responses.json(data, content_type=content_type, headers=headers))


def _generation(resources: tuple[Resource, ...]) -> str:
    """What changes whenever custom resources of a group-version do."""
    return ",".join(f"{each.plural}@{custom.since}" for each in resources if (custom := kind_of(each)) is not None)


def _openapi_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _version() -> Document:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+pilotage",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": "cpython",
        "platform": f"{platform.system().lower()}/{platform.machine().replace('x86_64', 'amd64')}",
    }
