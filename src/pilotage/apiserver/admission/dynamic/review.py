"""AdmissionReview: what a webhook is asked, and what its answer means.

Stands apart from calling, because all of it is translation. Source: admission.k8s.io/v1 in the Kubernetes API
reference.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec

from pilotage.api.catalogue import Resource
from pilotage.api.patch.errors import PatchError
from pilotage.api.patch.json_patch import json_patch
from pilotage.api.status import ApiError
from pilotage.apiserver.admission.dynamic.matching import OPERATIONS
from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.core.stored_form import from_stored, to_stored

WARNINGS_MAX = 20
WARNING_CHARACTERS_MAX = 256


class AnswerError(Exception):
    """A webhook's answer makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A webhook's answer, read."""

    allowed: bool
    message: str = ""
    code: int = 0
    reason: str = ""
    patch: Any = None  # None: nothing to change
    warnings: tuple[str, ...] = ()


def request_of(operation: Operation, resource: Resource, uid: str) -> Document:
    """The `request` of a review, the object shown as `resource`'s version."""
    own = operation.resource
    options = {"create": "CreateOptions", "update": "UpdateOptions", "delete": "DeleteOptions"}[operation.verb]
    request: Document = {
        "uid": uid,
        "kind": _kind(resource),
        "resource": _resource(resource),
        "requestKind": _kind(own),
        "requestResource": _resource(own),
        "name": operation.name,
        "operation": OPERATIONS[operation.verb],
        "userInfo": operation.user.to_wire(),
        "object": shown_as(operation.document, own, resource),
        "oldObject": shown_as(operation.old, own, resource),
        "dryRun": operation.dry_run,
        "options": {
            "kind": options,
            "apiVersion": "meta.k8s.io/v1",
            **({"dryRun": ["All"]} if operation.dry_run else {}),
        },
    }
    if operation.namespace:
        request["namespace"] = operation.namespace
    if operation.subresource:
        request["subResource"] = request["requestSubResource"] = operation.subresource
    return request


def shown_as(document: Document | None, own: Resource, other: Resource) -> Document | None:
    """A document of one version as another shows it."""
    if document is None or other is own:
        return document
    return from_stored(other, to_stored(own, document))


def _kind(resource: Resource) -> Document:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _resource(resource: Resource) -> Document:
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def verdict(data: bytes, uid: str, *, mutating: bool) -> Verdict:
    """The answer to a review. Raises AnswerError."""
    try:
        answer = msgspec.json.decode(data)
        response = answer["response"]
        kind = (answer.get("apiVersion"), answer.get("kind"))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise AnswerError(f"webhook response is not an AdmissionReview: {str(error)[:200]}") from None
    if kind != ("admission.k8s.io/v1", "AdmissionReview"):
        raise AnswerError(f"expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {kind}")
    if not isinstance(response, dict):
        raise AnswerError("webhook response was absent")
    if response.get("uid") != uid:
        raise AnswerError(f"expected response.uid={uid!r}, got {str(response.get('uid'))[:80]!r}")
    status = response.get("status")
    status = status if isinstance(status, dict) else {}
    warnings = response.get("warnings")
    texts = (
        [str(each)[:WARNING_CHARACTERS_MAX] for each in warnings[:WARNINGS_MAX]] if isinstance(warnings, list) else []
    )
    return Verdict(
        allowed=response.get("allowed") is True,
        message=str(status.get("message") or status.get("reason") or ""),
        code=status["code"] if isinstance(status.get("code"), int) else 0,
        reason=str(status.get("reason") or ""),
        patch=_patch(response, mutating=mutating),
        warnings=tuple(texts),
    )


def _patch(response: Document, *, mutating: bool) -> Any:
    patch = response.get("patch")
    if not patch:
        return None
    if not mutating:
        raise AnswerError("validating webhook may not return response.patch")
    if response.get("patchType") != "JSONPatch":
        raise AnswerError(
            f"webhook returned response.patch but not response.patchType JSONPatch: {response.get('patchType')}"
        )
    try:
        return msgspec.json.decode(base64.b64decode(patch, validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise AnswerError(f"response.patch is not a base64 encoded JSON patch: {error}") from None


def patched(document: Document, patch: Any) -> Document:
    """The document changed as the webhook wants. Raises AnswerError."""
    try:
        changed = json_patch(document, patch)
    except (PatchError, ApiError) as error:
        raise AnswerError(f"the patch does not apply: {error}") from None
    if not isinstance(changed, dict) or not isinstance(changed.get("metadata"), dict):
        raise AnswerError("the patch leaves no object")
    return changed


def denial(name: str, answer: Verdict) -> ApiError:
    """The refusal of a webhook, as the client sees it."""
    code = answer.code if 400 <= answer.code < 600 else 403
    why = f"denied the request: {answer.message}" if answer.message else "denied the request without explanation"
    reason = answer.reason or ("Forbidden" if code == 403 else "BadRequest" if code < 500 else "InternalError")
    return ApiError(reason if reason.isalpha() else "Forbidden", f'admission webhook "{name}" {why}', code=code)
