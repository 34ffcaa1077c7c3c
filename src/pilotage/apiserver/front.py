"""The HTTP front: one function between a request and its answer.

Stands apart as the only place that sees HTTP for ordinary requests: authenticate, route, authorise, dispatch, answer.
It is one function over a hand-rolled router, because a table of hundreds of routes and a stack of middleware cost more
than the work itself. Reads go to the cache, writes to the registry, special subresources to their handlers; every
failure becomes a Status. Called by aiohttp's low-level server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from aiohttp import web

from pilotage.api.catalogue import Resource
from pilotage.api.labels import SelectorError, parse_field_selector
from pilotage.api.status import ApiError, StatusDetails
from pilotage.apiserver import body, responses, watches
from pilotage.apiserver.call import Call
from pilotage.apiserver.core import deletion
from pilotage.apiserver.core.bodies import DELETE_OPTIONS, conformed
from pilotage.apiserver.core.custom_resource import kind_of
from pilotage.apiserver.core.forms import View
from pilotage.apiserver.core.negotiation import DOCUMENT_TYPES, PATCH_TYPES, Form, Representation, representation
from pilotage.apiserver.core.options import (
    DeleteOptions,
    ListOptions,
    delete_options,
    flag,
    list_options,
    write_options,
)
from pilotage.apiserver.core.routes import Route, route
from pilotage.apiserver.core.selection import selection
from pilotage.apiserver.gate import Gate
from pilotage.apiserver.lists import page
from pilotage.apiserver.metrics import REQUEST_SECONDS, REQUESTS_IN_FLIGHT, WATCHES
from pilotage.apiserver.registry import Registry, Written
from pilotage.apiserver.resources import Resources
from pilotage.apiserver.root import Root
from pilotage.kit.clock import Clock
from pilotage.storage import StorageError
from pilotage.telemetry import get_logger

log = get_logger()

# A watch without timeoutSeconds lasts this long; kube-apiserver picks between 30 and 60 minutes.
WATCH_TIMEOUT_S = 1_800
# A watcher that has stopped reading is cut off rather than kept for as long as its connection stands.
WRITE_TIMEOUT_S = 60.0
# kube-apiserver allows 600 requests at once, reads and writes together; more only wait for each other.
REQUESTS_MAX = 600
# Each costs a connection and a few kilobytes.
LASTING_MAX = 10_000
_LASTING = frozenset(("log", "exec", "attach", "portforward", "proxy"))
# A WebSocket begins with a GET, yet opens a shell: to get is not enough, as in Kubernetes since 1.35.
_SHELLS = frozenset((("pods", "exec"), ("pods", "attach"), ("pods", "portforward"), ("nodes", "proxy")))
_OBJECT = Representation(Form.OBJECT)
# The handler of `scale` for every custom resource.
ANY_SCALE = ("*", "*", "scale")

Handler = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]


class Front:
    """Answers every request of the server."""

    def __init__(
        self,
        *,
        gate: Gate,
        resources: Resources,
        registry: Registry,
        root: Root,
        subresources: Mapping[tuple[str, str, str], Handler],
        virtual: Mapping[tuple[str, str], Handler],
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._resources = resources
        self._registry = registry
        self._root = root
        self._subresources = subresources  # (group, plural, subresource) → handler of what is not a plain object
        self._virtual = virtual  # (group, plural) → handler of resources that are only asked, never stored
        self._clock = clock
        self._draining = False
        self._in_flight = {False: 0, True: 0}  # ordinary requests, and those that last (watches, logs, shells)
        REQUESTS_IN_FLIGHT.set_function(lambda: sum(self._in_flight.values()))

    def drain(self) -> None:
        """End every watch, and answer new ones that the server is going away."""
        self._draining = True
        for _, _, objects in self._registry.store.cache.resources():
            for cursor in tuple(objects.cursors):
                cursor.expire()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        started = time.perf_counter()
        query = request.query
        asked = route(request.method, request.path, watch=bool(query) and flag(query, "watch"))
        lasting = asked.verb == "watch" or asked.subresource in _LASTING
        if self._in_flight[lasting] >= (LASTING_MAX if lasting else REQUESTS_MAX):
            return responses.error(_busy())
        self._in_flight[lasting] += 1
        try:
            response = await self._guarded(request, asked)
        finally:
            self._in_flight[lasting] -= 1
        if not lasting:
            known = self._resources.lookup(asked.group, asked.version, asked.plural) is not None
            labels = (asked.verb, asked.plural, str(response.status)) if known else ("", "", str(response.status))
            REQUEST_SECONDS.labels(*labels).observe(time.perf_counter() - started)
        return response

    async def _guarded(self, request: web.BaseRequest, asked: Route) -> web.StreamResponse:
        """The answer, or the Status that says why there is none."""
        try:
            return await self._answer(request, asked)
        except ApiError as failure:
            return responses.error(failure)
        except StorageError as failure:
            log.error("storage failed", path=asked.path[:200], error=str(failure))
            return responses.error(ApiError("InternalError", "the storage is not available"))
        except (ConnectionResetError, asyncio.CancelledError):
            raise  # the client has left
        except Exception:
            log.exception("request failed", method=request.method, path=asked.path[:200])
            return responses.error(ApiError("InternalError", "an internal error occurred; the server's log has it"))

    async def _answer(self, request: web.BaseRequest, asked: Route) -> web.StreamResponse:
        user = self._gate.authenticate(request, self._clock.wall())
        self._gate.authorize(user, _narrowed(asked, request.query.get("fieldSelector", "")))
        if (asked.plural, asked.subresource) in _SHELLS and asked.verb == "get" and "Upgrade" in request.headers:
            self._gate.authorize(user, replace(asked, verb="create"))
        if not asked.resource_request:
            return await self._root.handle(request, asked)
        resource = self._resources.lookup(asked.group, asked.version, asked.plural)
        if resource is None:
            raise unknown_path()
        call = Call(
            resource=resource,
            namespace=asked.namespace if resource.namespaced else "",
            name=asked.name,
            subresource=asked.subresource,
            user=user,
            now=self._clock.wall(),
            user_agent=request.headers.get("User-Agent", ""),
        )
        self._check_allowed(asked, resource)
        if asked.subresource:
            key = (resource.group, resource.plural, asked.subresource)
            if asked.subresource == "scale" and kind_of(resource) is not None:
                key = ANY_SCALE
            handler = self._subresources.get(key)
            if handler is not None:
                return await handler(request, call)
        elif not resource.stored:
            return await self._virtual[(resource.group, resource.plural)](request, call)
        match asked.verb:
            case "get":
                return self._get(request, call)
            case "list":
                return await self._list(request, call)
            case "watch":
                return await self._watch(request, call)
            case "create" | "update" | "patch":
                return await self._write(request, call, asked.verb)
            case "delete" | "deletecollection":
                return await self._delete(request, call, collection=asked.verb == "deletecollection")
        raise not_allowed(asked)

    def _check_allowed(self, asked: Route, resource: Resource) -> None:
        if asked.subresource:
            subresource = resource.subresource(asked.subresource)
            if subresource is None or (asked.beyond and asked.subresource != "proxy"):
                raise unknown_path()
            verbs = (*subresource.verbs, "") if asked.subresource == "proxy" else subresource.verbs  # "": OPTIONS
        else:
            verbs = resource.verbs
        if asked.verb not in verbs:
            raise not_allowed(asked)
        if resource.namespaced and not asked.namespace and asked.verb not in ("list", "watch"):
            raise unknown_path() if asked.name else not_allowed(asked)
        if not resource.namespaced and asked.namespace and resource.plural != "namespaces":
            raise unknown_path()

    def _view(self, request: web.BaseRequest, resource: Resource) -> View:
        found = representation(request.headers.get("Accept", ""))
        if found is None or found.form is Form.DISCOVERY:
            raise ApiError("NotAcceptable", "only the following media types are accepted: application/json")
        if found.form is Form.TABLE:
            include = request.query.get("includeObject") or "Metadata"
            if include not in ("None", "Metadata", "Object"):
                raise ApiError("BadRequest", f"unrecognized includeObject value: {include[:40]!r}")
            return View(resource=resource, representation=found, include_object=include)
        return View(resource=resource, representation=found)

    def _get(self, request: web.BaseRequest, call: Call) -> web.Response:
        view = self._view(request, call.resource)
        return responses.json(view.object(self._registry.get(call), call.now))

    async def _list(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        view = self._view(request, call.resource)
        options = list_options(request.query)
        chosen = selection(call.resource, options.label_selector, options.field_selector)
        found = await page(self._registry.store.cache, call.resource, call.namespace, chosen, options)
        listed = view.collection(found.records, found.revision, call.now, found.continue_token, found.remaining)
        return await responses.collection(request, listed)

    async def _watch(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if self._draining:
            raise ApiError(
                "ServiceUnavailable", "the server is shutting down", details=StatusDetails(retry_after_seconds=1)
            )
        view = self._view(request, call.resource)
        options = list_options(request.query)
        field_selector = options.field_selector
        if call.name:  # the deprecated /watch/…/name path
            field_selector = f"metadata.name={call.name}"
        chosen = selection(call.resource, options.label_selector, field_selector)
        cache = self._registry.store.cache
        stream = await watches.Stream.open(
            watches.Watched(
                cache=cache,
                view=view,
                namespace=call.namespace,
                selection=chosen,
                options=options,
                clock=self._clock,
            )
        )
        cursor = stream.cursor
        response = web.StreamResponse(headers={"Content-Type": responses.JSON, "Cache-Control": "no-cache, private"})
        loop = asyncio.get_running_loop()
        timer = loop.call_later(options.timeout_s or WATCH_TIMEOUT_S, cursor.expire)
        WATCHES.inc()
        try:
            await response.prepare(request)
            stream.tell_promptly(lambda data: responses.send_at_once(request, data))
            async with contextlib.aclosing(stream.pieces()) as pieces:
                async for piece in pieces:
                    await responses.send(request, response, piece, WRITE_TIMEOUT_S)
            await response.write_eof()
        except (ConnectionResetError, BrokenPipeError):
            pass  # the watcher has left
        except TimeoutError:
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
        finally:
            WATCHES.dec()
            timer.cancel()
            cursor.close()
        return response

    async def _write(self, request: web.BaseRequest, call: Call, verb: str) -> web.Response:
        call.options = write_options(request.query)
        view = self._view(request, call.resource)
        kind = body.type_of(request)
        if kind not in (PATCH_TYPES if verb == "patch" else DOCUMENT_TYPES):
            raise ApiError("UnsupportedMediaType", f"{kind.value} is not a media type for {verb}")
        raw = await body.read(request)
        if verb == "patch":
            written = await self._registry.patch(call, kind, body.decode(raw, kind))
        else:
            decoded = self._registry.pipeline.decode_body(call, raw, kind)
            if verb == "create":
                written = await self._registry.create(call, decoded)
            else:
                written = await self._registry.update(call, decoded)
        status = 201 if written.created else 200
        return responses.json(view.object(written.record, call.now), status=status, warnings=call.warnings)

    async def _delete(self, request: web.BaseRequest, call: Call, *, collection: bool) -> web.Response:
        raw = await body.read(request)
        given = body.decode(raw, body.type_of(request)) if raw else None
        options = delete_options(request.query, None if given is None else conformed(DELETE_OPTIONS, given))
        if collection:
            return await self._delete_collection(request, call, options)
        written = await self._registry.delete(call, options)
        # An object that was there and had no grace leaves a Status; one that lingers is shown as it is now.
        if written.deleted and call.resource.group_resource != "pods":
            return responses.document(deletion.success(call.resource, written.record.document))
        return responses.json(self._view(request, call.resource).object(written.record, call.now))

    async def _delete_collection(self, request: web.BaseRequest, call: Call, options: DeleteOptions) -> web.Response:
        chosen_by: ListOptions = list_options(request.query)
        chosen = selection(call.resource, chosen_by.label_selector, chosen_by.field_selector)
        found = await page(self._registry.store.cache, call.resource, call.namespace, chosen, chosen_by)
        deleted: list[Written] = []
        for record in found.records:
            each = Call(
                resource=call.resource,
                namespace=record.namespace,
                name=record.name,
                subresource="",
                user=call.user,
                now=call.now,
                user_agent=call.user_agent,
            )
            try:
                deleted.append(await self._registry.delete(each, options))
            except ApiError as failure:
                if failure.reason != "NotFound":
                    raise
        view = View(resource=call.resource, representation=_OBJECT)
        records = [written.record for written in deleted]
        listed = view.collection(records, found.revision, call.now, found.continue_token, found.remaining)
        return responses.json(listed.whole())


def _busy() -> ApiError:
    details = StatusDetails(retry_after_seconds=1)
    return ApiError("TooManyRequests", "too many requests, please try again later", details=details)


def unknown_path() -> ApiError:
    """404 for a path that names nothing we serve."""
    return ApiError("NotFound", "the server could not find the requested resource")


def not_allowed(asked: Route) -> ApiError:
    """405 for a verb the resource does not have."""
    return ApiError(
        "MethodNotAllowed", f"the server does not allow this method on the requested resource: {asked.path[:200]}"
    )


def _narrowed(asked: Route, field_selector: str) -> Route:
    """As authorizers see it: a collection narrowed to one name is that object, so that a node may watch one ConfigMap.

    As kube-apiserver's RequestInfo does for list, watch and deletecollection (KEP-4601).
    """
    if not field_selector or asked.name or asked.verb not in ("list", "watch", "deletecollection"):
        return asked
    try:
        requirements = parse_field_selector(field_selector).requirements
    except SelectorError:
        return asked  # whoever may list learns what is wrong with the selector
    fields = tuple((one.key, next(iter(one.values))) for one in requirements if one.operator == "in")
    return replace(asked, name=dict(fields).get("metadata.name", ""), fields=fields)
