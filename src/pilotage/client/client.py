"""A typed REST client: one connection pool to one API server.

Stands apart from informers, which are the way to read much; this is for single requests and for the raw list and
watch that informers are made of. Writes go by patch or apply, since typed values hold only the fields that components
read. No retries here: whoever asked knows whether asking twice is safe.
"""

import asyncio
import enum
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from pilotage.api.codec import convert, decode, encode
from pilotage.api.meta_v1 import Object
from pilotage.api.status import ApiError, Status
from pilotage.client.errors import ConnectionFailed
from pilotage.client.kubeconfig import Connection, load_kubeconfig
from pilotage.kit.errors import UsageError

K = TypeVar("K", bound=Object)

REQUEST_TIMEOUT_S = 30.0  # longer than any answer that is not a watch; the server's own limit is 60 s
CONNECT_TIMEOUT_S = 5.0
WATCH_LINE_BYTES_MAX = 8 * 1024 * 1024  # an event holds one object (3 MiB at most, twice that when escaped)
CONNECTIONS_MAX = 100


class PatchType(enum.StrEnum):
    """The four patch formats, by content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[K]):
    """One page of a list."""

    items: tuple[K, ...]
    resource_version: str
    continue_token: str  # empty: this was the last page


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent(Generic[K]):
    """ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised as `ApiError` instead."""

    type: str
    object: K


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _RawList(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class Client:
    """Requests to one API server; an async context manager that owns the connections."""

    def __init__(self, connection: Connection, *, user_agent: str = "pilotage") -> None:
        self.connection = connection
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: str | Path, *, user_agent: str = "pilotage") -> "Client":
        """Reads the file now, connects on first use; raises `UsageError`."""
        return cls(load_kubeconfig(path), user_agent=user_agent)

    async def __aenter__(self) -> "Client":
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ── single objects ──────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, kind: type[K], name: str, *, namespace: str = "", subresource: str = "") -> K:
        """Raises `ApiError` (NotFound …) or `ConnectionFailed`, like every request here."""
        return decode(kind, await self.request("GET", path_of(kind, namespace, name, subresource)))

    async def create(self, obj: K, *, namespace: str = "", subresource: str = "", dry_run: bool = False) -> K:
        """Create `obj`; the namespace is its own unless given. A name is needed only for a subresource."""
        kind = type(obj)
        path = path_of(kind, namespace or obj.metadata.namespace, obj.metadata.name if subresource else "", subresource)
        return decode(kind, await self.request("POST", path, body=encode(obj), query=_dry(dry_run)))

    async def update(self, obj: K, *, subresource: str = "") -> K:
        """Replace; fields that the type does not know would be lost, so only for kinds this program owns alone."""
        kind, meta = type(obj), obj.metadata
        path = path_of(kind, meta.namespace, meta.name, subresource)
        return decode(kind, await self.request("PUT", path, body=encode(obj)))

    async def update_status(self, obj: K) -> K:
        """Replace the status subresource, checked against the object's resourceVersion."""
        return await self.update(obj, subresource="status")

    async def patch(
        self,
        kind: type[K],
        name: str,
        body: object,
        *,
        namespace: str = "",
        patch_type: PatchType = PatchType.MERGE,
        subresource: str = "",
        field_manager: str = "",
    ) -> K:
        """Change parts; `body` is a plain document (or list of operations) with the wire's names, or typed values."""
        query = {"fieldManager": field_manager} if field_manager else {}
        path = path_of(kind, namespace, name, subresource)
        raw = await self.request("PATCH", path, body=encode(body), query=query, content_type=patch_type.value)
        return decode(kind, raw)

    async def apply(
        self, obj: K | Mapping[str, Any], *, field_manager: str, force: bool = True, subresource: str = ""
    ) -> bytes:
        """Server-side apply (KEP-555) of a typed value or a plain document; returns the stored object's JSON."""
        document = msgspec.json.decode(encode(obj))
        query = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = document_path(document, subresource)
        return await self.request("PATCH", path, body=encode(document), query=query, content_type=PatchType.APPLY.value)

    async def delete(
        self,
        kind: type[K],
        name: str,
        *,
        namespace: str = "",
        grace_period_s: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Ask for deletion; `uid` and `resource_version` make it conditional (Conflict otherwise)."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        await self.request("DELETE", path_of(kind, namespace, name), body=msgspec.json.encode(options))

    # ── many objects ────────────────────────────────────────────────────────────────────────────────────────────

    async def list(
        self,
        kind: type[K],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> Listing[K]:
        """One page (everything when `limit` is 0); an empty namespace means all of them."""
        query = _selectors(label_selector, field_selector)
        if limit:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        if resource_version:
            query["resourceVersion"] = resource_version
        raw = msgspec.json.decode(await self.request("GET", path_of(kind, namespace), query=query), type=_RawList)
        return Listing(
            items=tuple(decode(kind, bytes(item)) for item in raw.items or ()),
            resource_version=raw.metadata.resource_version,
            continue_token=raw.metadata.continue_,
        )

    async def watch(
        self,
        kind: type[K],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        send_initial_events: bool = False,
        timeout_s: int = 0,
    ) -> AsyncIterator[WatchEvent[K]]:
        """Events until the server ends the stream (returns), refuses (`ApiError`) or is lost (`ConnectionFailed`).

        With `send_initial_events` the stream opens with everything that exists, then a BOOKMARK that carries the
        annotation `k8s.io/initial-events-end` (KEP-3157).
        """
        query = {"watch": "true", "allowWatchBookmarks": "true"} | _selectors(label_selector, field_selector)
        if resource_version:
            query["resourceVersion"] = resource_version
        if send_initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        if timeout_s:
            query["timeoutSeconds"] = str(timeout_s)
        decoder = msgspec.json.Decoder(_RawEvent)
        try:
            async with self._open().get(
                self.connection.server + path_of(kind, namespace),
                params=query,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=None),
            ) as response:
                if response.status != 200:
                    raise _failure(response.status, await response.read())
                async for line in _lines(response.content):
                    event = decoder.decode(line)
                    if event.type == "ERROR":
                        status = decode(Status, bytes(event.object))
                        raise ApiError.from_status(status, status.code)
                    yield WatchEvent(type=event.type, object=decode(kind, bytes(event.object)))
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise ConnectionFailed(f"watch of {kind.plural} lost: {_reason(error)}") from error

    # ── the wire ────────────────────────────────────────────────────────────────────────────────────────────────

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        """Any request; the answer's body, or `ApiError` for a status of 400 and above."""
        headers = self._headers() | {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with self._open().request(
                method, self.connection.server + path, data=body, params=query, headers=headers
            ) as response:
                answer = await response.read()
                if response.status >= 400:
                    raise _failure(response.status, answer)
                return answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ConnectionFailed(f"{method} {self.connection.server}{path}: {_reason(error)}") from error

    def _headers(self) -> dict[str, str]:
        token = self.connection.bearer_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = self.connection.ssl_context()
            connector = aiohttp.TCPConnector(
                ssl=context if context is not None else True,
                limit=CONNECTIONS_MAX,
                family=socket.AF_UNSPEC,
                keepalive_timeout=60,
                use_dns_cache=True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"User-Agent": self._user_agent},
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
                read_bufsize=256 * 1024,
                auto_decompress=True,
            )
        return self._session


def path_of(kind: type[Object], namespace: str = "", name: str = "", subresource: str = "") -> str:
    """`/apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]`."""
    return _path(kind.api_version, kind.plural, namespace if kind.namespaced else "", name, subresource)


def document_path(document: Mapping[str, Any], subresource: str = "") -> str:
    """The path of a plain document of a built-in kind; raises `UsageError` for any other."""
    from pilotage.api.catalogue import by_api_version  # only apply needs the catalogue

    resource = by_api_version(document["apiVersion"], document["kind"])
    if resource is None:
        raise UsageError(f"{document['kind']} of {document['apiVersion']} is not a built-in kind")
    meta = document["metadata"]
    namespace = meta.get("namespace", "default") if resource.namespaced else ""
    return _path(document["apiVersion"], resource.plural, namespace, meta["name"], subresource)


def _path(api_version: str, plural: str, namespace: str, name: str, subresource: str) -> str:
    root = "/apis/" if "/" in api_version else "/api/"
    parts = [root + api_version]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Newline-separated documents of any length up to the bound (StreamReader's own readline stops far earlier)."""
    pending: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            pending.append(chunk[start:end])
            line = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            size = 0
            start = end + 1
            if line.strip():
                yield line
        if start < len(chunk):
            pending.append(chunk[start:])
            size += len(chunk) - start
            if size > WATCH_LINE_BYTES_MAX:
                raise ConnectionFailed(f"a watch event exceeds {WATCH_LINE_BYTES_MAX} bytes")


def _failure(code: int, body: bytes) -> ApiError:
    try:
        status = convert(Status, msgspec.json.decode(body))
    except (msgspec.DecodeError, msgspec.ValidationError):
        status = Status(message=body[:500].decode(errors="replace"))
    return ApiError.from_status(status, code)


def _reason(error: BaseException) -> str:
    return "timed out" if isinstance(error, asyncio.TimeoutError) else (str(error) or type(error).__name__)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in query.items() if value}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}
