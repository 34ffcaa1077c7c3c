"""meta/v1: what every object carries.

Source: Kubernetes API conventions (metadata, conditions) and meta/v1 of the 1.36 API. Only fields that some component
reads stand here; nothing is lost by that, because components write patches.
"""

from typing import ClassVar, NewType

from pilotage.api.codec import Value

UID = NewType("UID", str)


class OwnerReference(Value):
    """The object that this one belongs to; the garbage collector follows it."""

    api_version: str
    kind: str
    name: str
    uid: UID
    controller: bool = False  # at most one owner is the managing controller
    block_owner_deletion: bool = False


class ObjectMeta(Value):
    """Identity and bookkeeping of an object."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""  # empty for cluster-scoped kinds
    uid: UID = UID("")
    resource_version: str = ""  # an integer in text since Kubernetes 1.35 (KEP-5504); see `version_number`
    generation: int = 0
    creation_timestamp: str = ""  # RFC 3339, seconds
    deletion_timestamp: str = ""  # empty while the object is not being deleted
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def version_number(self) -> int:
        """The resourceVersion as an integer; 0 for an object that was never stored."""
        return int(self.resource_version or 0)

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped object; unique within a kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def is_deleting(self) -> bool:
        return bool(self.deletion_timestamp)

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object, if any."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Object(Value):
    """Base of every kind: subclasses state where they live in the API."""

    api_version: ClassVar[str] = ""  # "v1", "apps/v1"
    kind: ClassVar[str] = ""
    plural: ClassVar[str] = ""
    namespaced: ClassVar[bool] = True

    metadata: ObjectMeta = ObjectMeta()


class LabelSelectorRequirement(Value):
    """`key` In, NotIn, Exists or DoesNotExist `values`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Value):
    """All of `match_labels` and all of `match_expressions`; empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Condition(Value):
    """One aspect of an object's state, in the shape that all kinds share."""

    type: str
    status: str  # "True", "False" or "Unknown"
    reason: str = ""  # CamelCase, stable, for programs
    message: str = ""  # for people
    last_transition_time: str = ""


class ObservedCondition(Condition):
    """meta/v1 Condition proper: also names the generation it speaks of. Kinds older than it have no such field."""

    observed_generation: int = 0
