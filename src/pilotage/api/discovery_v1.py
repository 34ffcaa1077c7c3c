"""discovery.k8s.io/v1: EndpointSlice, which every consumer of endpoints reads.

Source: Kubernetes 1.36 API reference; KEP-752 (slices), KEP-1672 (terminating endpoints), KEP-2433 (hints).
"""

from typing import ClassVar

from pilotage.api.codec import Value
from pilotage.api.core_v1 import ObjectReference
from pilotage.api.meta_v1 import Object

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"


class EndpointConditions(Value):
    """None means unknown: `ready` and `serving` then count as true, `terminating` as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Value):
    name: str


class ForNode(Value):
    name: str


class EndpointHints(Value):
    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForNode, ...] = ()


class Endpoint(Value):
    addresses: tuple[str, ...] = ()  # consumers use the first only (KEP-752)
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""
    hints: EndpointHints = EndpointHints()

    @property
    def is_ready(self) -> bool:
        return self.conditions.ready is not False

    @property
    def is_serving(self) -> bool:
        return self.is_ready if self.conditions.serving is None else self.conditions.serving

    @property
    def is_terminating(self) -> bool:
        return self.conditions.terminating is True


class EndpointPort(Value):
    name: str = ""
    protocol: str = "TCP"
    port: int | None = None  # None: all ports
    app_protocol: str = ""


class EndpointSlice(Object):
    api_version: ClassVar[str] = "discovery.k8s.io/v1"
    kind: ClassVar[str] = "EndpointSlice"
    plural: ClassVar[str] = "endpointslices"

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service_name(self) -> str:
        """The Service this slice belongs to; empty for an orphan."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")
