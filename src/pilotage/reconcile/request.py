"""What a reconciler is asked and what it answers."""

from dataclasses import dataclass

from pilotage.api.meta_v1 import Object


@dataclass(frozen=True, slots=True)
class Request:
    """The name of one root object; it may be gone by the time it is looked at."""

    namespace: str  # empty for cluster-scoped kinds
    name: str

    @classmethod
    def of(cls, obj: Object) -> "Request":
        return cls(obj.metadata.namespace, obj.metadata.name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a reconcile ended well."""

    requeue_after_s: float | None = None  # None: nothing to do until something changes


DONE = Result()
