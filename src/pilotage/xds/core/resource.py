"""Resources and snapshots: what an Envoy should hold, as immutable values.

Stands apart from `stream`, which decides when a resource is sent. Made by a translator (`gateway.core.translate`);
bodies are kept serialised, so that a snapshot cannot change after it was published and equal content is equal bytes.
Leaves out the meaning of a body: this module never looks inside one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any


class ResourceType(Enum):
    """The types we serve, by their type URL, in the order of sending: parents first, see `stream.REQUIRES`."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type URL
    ROUTE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    @property
    def parent(self) -> "ResourceType | None":
        """The type whose resources make an Envoy ask for this one; None for what it asks for unprompted."""
        return _PARENTS.get(self)


_PARENTS = {
    ResourceType.ENDPOINT: ResourceType.CLUSTER,
    ResourceType.SECRET: ResourceType.LISTENER,
    ResourceType.ROUTE: ResourceType.LISTENER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One named resource; `version` is a digest of `body`, so unchanged content keeps its version for ever."""

    type: ResourceType
    name: str
    version: str
    body: bytes  # the serialised message; may hold a private key, hence never printed

    @classmethod
    def of(cls, type_: ResourceType, name: str, message: Any) -> "Resource":
        """`message` is the protobuf message of `type_`; serialised deterministically."""
        body: bytes = message.SerializeToString(deterministic=True)
        return cls(type=type_, name=name, version=hashlib.sha256(body).hexdigest()[:16], body=body)

    def __repr__(self) -> str:
        return f"Resource({self.type.name} {self.name}@{self.version}, {len(self.body)} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything an Envoy should hold at `version`, which grows with every snapshot of one server.

    Every ENDPOINT has the name of its CLUSTER, and every SECRET and ROUTE is named by some LISTENER: the stream waits
    for an Envoy to ask for them before it removes what they replace.
    """

    version: int
    resources: Mapping[ResourceType, Mapping[str, Resource]]  # every type is present, names sorted

    @classmethod
    def of(cls, version: int, resources: Iterable[Resource]) -> "Snapshot":
        """Names are unique within a type; a repeated one raises ValueError."""
        grouped: dict[ResourceType, dict[str, Resource]] = {type_: {} for type_ in ResourceType}
        for resource in sorted(resources, key=lambda item: item.name):
            if resource.name in grouped[resource.type]:
                raise ValueError(f"{resource.type.name} {resource.name} twice in one snapshot")
            grouped[resource.type][resource.name] = resource
        return cls(
            version=version,
            resources=MappingProxyType({type_: MappingProxyType(named) for type_, named in grouped.items()}),
        )

    def same_content(self, other: "Snapshot") -> bool:
        """Whether both hold the same resources, whatever their versions."""
        return self.resources == other.resources
