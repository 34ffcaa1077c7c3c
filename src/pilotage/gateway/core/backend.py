"""A Service port and its EndpointSlices → the cluster that a route forwards to.

Stands apart from the front ends because all of them name backends the same way. Fed with whole indexes; endpoints are
used directly, not through the Service's virtual IP, so that each request is balanced on its own and a terminating
endpoint is left at once. Leaves out traffic distribution and weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.api import services
from pilotage.api.core_v1 import Service, ServicePort
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.gateway.core.ir import Cluster, Endpoint, Protocol

# Service.spec.ports.appProtocol: KEP-3726 defines the kubernetes.io/ names; "grpc" is what users write for gRPC.
H2C_APP_PROTOCOLS = frozenset({"kubernetes.io/h2c", "grpc"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendError:
    """Why a backend has no cluster; reason and message as in `Problem`."""

    reason: str
    message: str


class Backends:
    """Looks backends up in one snapshot and remembers the clusters that were asked for."""

    def __init__(self, known: Iterable[Service], slices: Iterable[EndpointSlice]) -> None:
        self._services = {(item.metadata.namespace, item.metadata.name): item for item in known}
        self._slices: Mapping[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
        for slice_ in slices:
            if slice_.service_name and slice_.address_type != "FQDN":
                self._slices[slice_.metadata.namespace, slice_.service_name].append(slice_)
        self._clusters: dict[str, Cluster] = {}

    def resolve(self, namespace: str, service_name: str, port: int | str) -> Cluster | BackendError:
        """The cluster of a Service's port, given by number or name."""
        service = self._services.get((namespace, service_name))
        if service is None:
            return BackendError(reason="ServiceNotFound", message=f"Service {namespace}/{service_name} does not exist")
        if service.spec.type == "ExternalName":
            return BackendError(
                reason="UnsupportedBackend",
                message=f"Service {namespace}/{service_name} is an ExternalName, which has no endpoints",
            )
        service_port = _find_port(service, port)
        if service_port is None:
            return BackendError(
                reason="ServicePortNotFound", message=f"Service {namespace}/{service_name} has no TCP port {port}"
            )
        name = f"{namespace}/{service_name}/{service_port.port}"
        if name not in self._clusters:
            self._clusters[name] = Cluster(
                name=name,
                protocol=Protocol.H2C if service_port.app_protocol in H2C_APP_PROTOCOLS else Protocol.HTTP1,
                endpoints=self._endpoints(service, service_port.name),
            )
        return self._clusters[name]

    def clusters(self) -> tuple[Cluster, ...]:
        """Every cluster that was resolved, by name."""
        return tuple(self._clusters[name] for name in sorted(self._clusters))

    def _endpoints(self, service: Service, port_name: str) -> tuple[Endpoint, ...]:
        """Of one family, the Service's first that has any: a pod with an address of each is one endpoint."""
        slices = self._slices.get((service.metadata.namespace, service.metadata.name), ())
        for family in dict.fromkeys((*services.families(service), "IPv4", "IPv6")):
            found = _ready(port_name, (one for one in slices if one.address_type == family))
            if found:
                return found
        return ()


def _ready(port_name: str, slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    found = {
        Endpoint(address=endpoint.addresses[0], port=port.port, zone=endpoint.zone)
        for slice_ in slices
        for port in slice_.ports
        if port.name == port_name and port.port is not None and port.protocol == "TCP"
        for endpoint in slice_.endpoints
        # publishNotReadyAddresses keeps terminating endpoints ready (KEP-1672), yet they are about to stop
        if endpoint.addresses and endpoint.is_ready and not endpoint.is_terminating
    }
    # While an endpoint moves between slices it is in both, perhaps with different zones: one address, one endpoint.
    return tuple(sorted({(item.address, item.port): item for item in sorted(found)}.values()))


def _find_port(service: Service, port: int | str) -> ServicePort | None:
    for candidate in service.spec.ports:
        if candidate.protocol == "TCP" and port == (candidate.port if isinstance(port, int) else candidate.name):
            return candidate
    return None
