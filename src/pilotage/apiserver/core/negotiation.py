"""Which form of the answer a client wants, and how its body is written.

Stands apart because the rules are fiddly and pure. Fed by the Accept and Content-Type headers. Protobuf is never
produced: clients that prefer it list JSON second, and get that (KEP-1152 does not promise more).
Source: Kubernetes API concepts, "Alternate representations of resources" and "Receiving resources as Tables".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache


class Form(enum.Enum):
    """The representation of objects in the answer."""

    OBJECT = "object"
    TABLE = "table"
    PARTIAL = "partial"
    DISCOVERY = "discovery"  # apidiscovery.k8s.io/v2, only at /api and /apis


@dataclass(frozen=True, slots=True)
class Representation:
    """A form, and for Table, PartialObjectMetadata and discovery the version of the group it belongs to."""

    form: Form
    version: str = ""


_OBJECT = Representation(Form.OBJECT)
_FORMS = {
    ("Table", "meta.k8s.io", "v1"): Representation(Form.TABLE, "v1"),
    ("Table", "meta.k8s.io", "v1beta1"): Representation(Form.TABLE, "v1beta1"),
    ("PartialObjectMetadata", "meta.k8s.io", "v1"): Representation(Form.PARTIAL, "v1"),
    ("PartialObjectMetadata", "meta.k8s.io", "v1beta1"): Representation(Form.PARTIAL, "v1beta1"),
    ("PartialObjectMetadataList", "meta.k8s.io", "v1"): Representation(Form.PARTIAL, "v1"),
    ("PartialObjectMetadataList", "meta.k8s.io", "v1beta1"): Representation(Form.PARTIAL, "v1beta1"),
    ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"): Representation(Form.DISCOVERY, "v2"),
}
_JSON_TYPES = frozenset(("application/json", "application/*", "*/*", "application/yaml", "text/*", "text/plain"))


@lru_cache(maxsize=256)
def representation(accept: str) -> Representation | None:
    """The first form of the header that we can produce; None: nothing acceptable (406). No header means plain JSON."""
    if not accept.strip():
        return _OBJECT
    for choice in accept.split(","):
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        if media_type not in _JSON_TYPES:
            continue
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        if "as" not in values:
            return _OBJECT
        found = _FORMS.get((values["as"], values.get("g", ""), values.get("v", "")))
        if found is not None:
            return found
    return None


class BodyType(enum.Enum):
    """How a request body is to be read."""

    JSON = "application/json"
    YAML = "application/yaml"
    PROTOBUF = "application/vnd.kubernetes.protobuf"
    JSON_PATCH = "application/json-patch+json"
    MERGE_PATCH = "application/merge-patch+json"
    STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"
    APPLY_CBOR = "application/apply-patch+cbor"


_BODY_TYPES = {item.value: item for item in BodyType} | {
    "": BodyType.JSON,
    "text/yaml": BodyType.YAML,
    "application/x-yaml": BodyType.YAML,
    "application/apply-patch": BodyType.APPLY,
    "application/apply-patch+json": BodyType.APPLY,
}
DOCUMENT_TYPES = frozenset((BodyType.JSON, BodyType.YAML, BodyType.PROTOBUF))
PATCH_TYPES = frozenset((BodyType.JSON_PATCH, BodyType.MERGE_PATCH, BodyType.STRATEGIC_MERGE_PATCH, BodyType.APPLY))


@lru_cache(maxsize=64)
def body_type(content_type: str) -> BodyType | None:
    """The kind of body the Content-Type header announces; None: not one we read (415)."""
    return _BODY_TYPES.get(content_type.partition(";")[0].strip().lower())
