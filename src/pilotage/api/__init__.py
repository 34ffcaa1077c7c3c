"""The object model of the Kubernetes API, pure throughout.

Purpose: what objects look like and what may be done to them without a server: types, codec, selectors, quantities,
errors, schemas, patches.
Inputs → outputs: JSON or YAML bytes ↔ frozen values or plain documents.
Invariants: no I/O, no clock; typed values hold only what components read, so components write by patch or apply.
Reading order: `meta_v1`, `core_v1`, `codec`, `labels`, `status`, `catalogue`, `schema`, `patch`.
Specifications: Kubernetes 1.36 API reference and API conventions; RFC 6902, RFC 7396; KEP-555 (apply).
"""

from pilotage.api.meta_v1 import Condition, LabelSelector, Object, ObjectMeta, OwnerReference
from pilotage.api.status import ApiError

__all__ = ["ApiError", "Condition", "LabelSelector", "Object", "ObjectMeta", "OwnerReference"]
