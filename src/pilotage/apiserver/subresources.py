"""Subresources that change objects without being objects: scale, binding, eviction.

Stands apart from the front, which knows only plain objects; the shell half of `core.scale` and `core.pods`. Changes
made here are the server's own, so they skip the pipeline of client writes except for scale, which is a client's wish.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from pilotage.api.catalogue import Resource, lookup
from pilotage.api.codec import convert
from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector
from pilotage.api.patch.json_patch import json_patch
from pilotage.api.patch.merge_patch import merge_patch
from pilotage.api.status import ApiError
from pilotage.apiserver import body, responses
from pilotage.apiserver.call import Call
from pilotage.apiserver.core import pods
from pilotage.apiserver.core.bodies import BINDING, EVICTION, SCALE, conformed
from pilotage.apiserver.core.forms import View
from pilotage.apiserver.core.negotiation import DOCUMENT_TYPES, BodyType, Form, representation
from pilotage.apiserver.core.options import delete_options, write_options
from pilotage.apiserver.core.record import Document, Record
from pilotage.apiserver.core.scale import scale_of, scale_paths, scaled
from pilotage.apiserver.registry import Registry, names_version
from pilotage.kit import InvariantError

_encode = msgspec.json.Encoder().encode
SUCCESS: Document = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def builtin(group: str, version: str, plural: str) -> Resource:
    """A resource the server itself relies on."""
    found = lookup(group, version, plural)
    if found is None:
        raise InvariantError(f"{plural} is not in the catalogue")
    return found


PODS = builtin("", "v1", "pods")
BUDGETS = builtin("policy", "v1", "poddisruptionbudgets")


class Subresources:
    """Handlers of one server's special subresources."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def scale(self, request: web.BaseRequest, call: Call) -> web.Response:
        """GET, PUT and PATCH of `scale`."""
        paths = scale_paths(call.resource)
        if request.method in ("GET", "HEAD"):
            record = self._registry.get(call)
            return _scale_answer(request, record, scale_of(record.document, paths), call.now)
        call.options = write_options(request.query)
        kind = body.type_of(request)
        given = body.decode(await body.read(request), kind)
        call.subresource = ""  # it is the object's spec that changes; authorisation has been done for the subresource

        async def transform(current: Document) -> Document:
            if kind in DOCUMENT_TYPES:
                wanted = given
            elif kind is BodyType.JSON_PATCH:
                wanted = json_patch(scale_of(current, paths), given)
            else:  # a Scale holds no lists: merging is the same for the other patch types
                wanted = merge_patch(scale_of(current, paths), given)
            return scaled(current, conformed(SCALE, wanted), paths)

        written = await self._registry.modify(call, transform, conditional=names_version(given))
        return responses.document(scale_of(written.record.document, paths), warnings=call.warnings)

    async def binding(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `pods/<name>/binding` and of `bindings`."""
        call.options = write_options(request.query)
        given = await _document(request, BINDING)
        name = (given.get("metadata") or {}).get("name") or call.name
        if call.name and name != call.name:
            raise ApiError("BadRequest", "the name of the Binding does not match the name on the URL")
        if not name:
            raise ApiError("BadRequest", "name is required")
        target = _derived(call, PODS, call.namespace, name)
        given = self._registry.pipeline.bind(given)
        await self._registry.amend(target, lambda pod: pods.bound(pod, given, call.now))
        return responses.document(SUCCESS, status=201)

    async def eviction(self, request: web.BaseRequest, call: Call) -> web.Response:
        """POST of `pods/<name>/eviction`: a delete that respects disruption budgets."""
        given = await _document(request, EVICTION)
        name = (given.get("metadata") or {}).get("name")
        if name and name != call.name:
            raise ApiError("BadRequest", "name in URL does not match name in Eviction object")
        options = delete_options(request.query, given.get("deleteOptions"))
        target = _derived(call, PODS, call.namespace, call.name)
        pod = self._registry.get(target)
        if pods.needs_budget(pod.document) and not options.dry_run:
            await self._spend_budget(call, pod)
        if (
            not options.dry_run
            and not options.resource_version
            and options.uid in ("", pod.document["metadata"]["uid"])
        ):
            # A version that the caller insists on must still be the one there is.
            await self._registry.amend(target, lambda document: pods.announced(document, call.now))
        await self._registry.delete(target, options)
        return responses.document(SUCCESS, status=201)

    async def _spend_budget(self, call: Call, pod: Record) -> None:
        matching = [
            record
            for record in self._registry.cache(BUDGETS).scan(pod.namespace)
            if _selects((record.document.get("spec") or {}).get("selector"), pod)
        ]
        if pods.take_disruption([record.document for record in matching], pod.document, call.now) is None:
            return
        target = _derived(call, BUDGETS, pod.namespace, matching[0].name)
        # Taken again inside the write: two evictions must not spend the same disruption.
        await self._registry.amend(
            target, lambda budget: pods.take_disruption([budget], pod.document, call.now) or budget
        )


def _scale_answer(request: web.BaseRequest, record: Record, scale: Document, now: datetime) -> web.Response:
    """The Scale itself, or as a table, which is what kubectl prints."""
    found = representation(request.headers.get("Accept", ""))
    if found is None or found.form is not Form.TABLE:
        return responses.document(scale)
    view = View(resource=SCALE, representation=found, include_object=request.query.get("includeObject") or "Metadata")
    return responses.json(view.object(Record(record.key, _encode(scale), record.revision, scale), now))


def _selects(selector: Any, pod: Record) -> bool:
    if selector is None:
        return False
    try:
        parsed = from_label_selector(convert(LabelSelector, selector))
    except SelectorError:
        return False
    return parsed is not None and parsed.matches(pod.labels)


def _derived(call: Call, resource: Resource, namespace: str, name: str) -> Call:
    return Call(
        resource=resource,
        namespace=namespace,
        name=name,
        subresource="",
        user=call.user,
        now=call.now,
        options=call.options,
        user_agent=call.user_agent,
    )


async def _document(request: web.BaseRequest, shape: Resource) -> Document:
    kind = body.type_of(request)
    if kind not in DOCUMENT_TYPES:
        raise ApiError("UnsupportedMediaType", f"{kind.value} is not a media type for create")
    return conformed(shape, body.decode(await body.read(request), kind))
