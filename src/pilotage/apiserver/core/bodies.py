"""Bodies that are no resource of their own: what a subresource or a delete is sent.

Stands apart because they, too, must have the shape of their kind before anybody reads a field. Pure. Called by the
front and the subresources; raises ApiError BadRequest as for any other body that cannot be decoded.
"""

from __future__ import annotations

from pilotage.api.catalogue import Resource
from pilotage.api.schema_conform import FieldValidation, conform
from pilotage.api.status import ApiError
from pilotage.apiserver.core.record import Document


def _body(group: str, kind: str, schema: str) -> Resource:
    return Resource(
        group=group,
        version="v1",
        plural=f"{kind.lower()}s",
        singular=kind.lower(),
        kind=kind,
        namespaced=True,
        schema=schema,
        verbs=("create",),
    )


BINDING = _body("", "Binding", "io.k8s.api.core.v1.Binding")
DELETE_OPTIONS = _body("", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
EVICTION = _body("policy", "Eviction", "io.k8s.api.policy.v1.Eviction")
SCALE = _body("autoscaling", "Scale", "io.k8s.api.autoscaling.v1.Scale")
TOKEN_REQUEST = _body("authentication.k8s.io", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest")


def conformed(shape: Resource, given: object, validation: FieldValidation = "Ignore") -> Document:
    """The body in the shape of its kind; unknown fields are dropped."""
    if not isinstance(given, dict):
        raise ApiError("BadRequest", f"the body must be one {shape.kind} object")
    kind = given.get("kind")
    if kind not in (None, "", shape.kind):
        raise ApiError("BadRequest", f"the kind in the data ({str(kind)[:80]}) does not match {shape.kind}")
    return conform(shape, given, validation).document
