"""The service graph of a namespace: entries, services, their endpoints and where those run.

Apart from the drawings because the console and the command line draw the same graph differently. Fed by API objects
(`Snapshot`) and by what was seen to pass (`Traffic`). Leaves out positions and colours.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.api.core_v1 import Node, Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress, IngressBackend
from pilotage.observe.core.traffic import OUTSIDE, Traffic

ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The objects of one namespace, and the nodes."""

    ingresses: tuple[Ingress, ...] = ()
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address behind a Service."""

    name: str  # the pod's, or the address when no pod stands behind it
    address: str
    node: str  # empty: not on a node of the cluster
    zone: str
    ready: bool
    requests: int  # seen to be answered by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """An Ingress, a Service or the world outside. Unique by `id`."""

    id: str
    kind: str  # Ingress, ClusterIP, Headless, NodePort, LoadBalancer, ExternalName or Outside
    name: str
    detail: tuple[str, ...] = ()  # addresses and ports, for people
    endpoints: tuple[Endpoint, ...] = ()  # by zone, node, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """`source` may call `target`; both are vertex ids."""

    source: str
    target: str
    label: str = ""
    requests: int = 0
    declared: bool = True  # False: only seen, no object says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Vertices in drawing order (outside first, then by how far from it), edges sorted."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    depths: dict[str, int]  # vertex id → longest distance from the outside

    def edges_from(self, vertex: str) -> tuple[Edge, ...]:
        return tuple(edge for edge in self.edges if edge.source == vertex)


def build_topology(snapshot: Snapshot, traffic: Traffic) -> Topology:
    """The graph of a namespace with the requests counted on it."""
    zones = {node.metadata.name: node.metadata.labels.get(ZONE_LABEL, "") for node in snapshot.nodes}
    vertices = {OUTSIDE: Vertex(id=OUTSIDE, kind="Outside", name="outside")}
    edges: dict[tuple[str, str], Edge] = {}

    def connect(
        source: str, target: str, label: str = "", *, requests: int | None = None, declared: bool = True
    ) -> None:
        known = edges.get((source, target))
        labels = [part for part in (known.label if known else "", label) if part]
        edges[source, target] = Edge(
            source=source,
            target=target,
            label=", ".join(dict.fromkeys(labels)),
            requests=traffic.edges.get((source, target), 0) if requests is None else requests,
            declared=declared or bool(known and known.declared),
        )

    for service in sorted(snapshot.services, key=lambda service: service.metadata.name):
        vertex = _service_vertex(service, snapshot, zones, traffic)
        vertices[vertex.id] = vertex
        for label in _entries(service):
            connect(OUTSIDE, vertex.id, label)
        if service.spec.type == "ExternalName":
            target = f"external/{service.spec.external_name}"
            vertices[target] = Vertex(id=target, kind="Outside", name=service.spec.external_name)
            # Who asks an ExternalName is led on by DNS: whatever reached the Service went to the name behind it.
            passed = sum(count for (_, called), count in traffic.edges.items() if called == vertex.id)
            connect(vertex.id, target, "CNAME", requests=passed)
    for ingress in sorted(snapshot.ingresses, key=lambda ingress: ingress.metadata.name):
        vertex = _ingress_vertex(ingress)
        vertices[vertex.id] = vertex
        connect(OUTSIDE, vertex.id, "HTTP, HTTPS" if ingress.spec.tls else "HTTP")
        for label, backend in _paths(ingress):
            if backend.service is not None and f"service/{backend.service.name}" in vertices:
                connect(vertex.id, f"service/{backend.service.name}", label)
    for source, target in sorted(traffic.edges):
        if source in vertices and target in vertices and (source, target) not in edges:
            connect(source, target, declared=False)
    depths = _depths(vertices, edges)
    return Topology(
        vertices=tuple(sorted(vertices.values(), key=lambda vertex: (depths[vertex.id], vertex.id))),
        edges=tuple(edges[key] for key in sorted(edges)),
        depths=depths,
    )


def _service_vertex(service: Service, snapshot: Snapshot, zones: dict[str, str], traffic: Traffic) -> Vertex:
    spec = service.spec
    kind = "Headless" if spec.type == "ClusterIP" and spec.cluster_ip == "None" else spec.type
    ports = ", ".join(f"{port.port}/{port.protocol}" for port in spec.ports)
    detail = [spec.external_name] if kind == "ExternalName" else []
    if spec.cluster_ip and spec.cluster_ip != "None":
        detail.append(spec.cluster_ip)
    if ports:
        detail.append(ports)
    endpoints: dict[str, Endpoint] = {}
    for endpoint_slice in snapshot.slices:
        if endpoint_slice.service_name != service.metadata.name:
            continue
        for endpoint in endpoint_slice.endpoints:
            address = endpoint.addresses[0] if endpoint.addresses else ""
            target = endpoint.target_ref
            name = target.name if target is not None and target.kind == "Pod" else address
            endpoints[address] = Endpoint(
                name=name,
                address=address,
                node=endpoint.node_name,
                zone=endpoint.zone or zones.get(endpoint.node_name, ""),
                ready=endpoint.is_ready,
                requests=traffic.pods.get((service.metadata.name, name), 0),
            )
    ordered = sorted(endpoints.values(), key=lambda endpoint: (endpoint.zone, endpoint.node, endpoint.name))
    return Vertex(
        id=f"service/{service.metadata.name}",
        kind=kind,
        name=service.metadata.name,
        detail=tuple(detail),
        endpoints=tuple(ordered),
    )


def _entries(service: Service) -> Iterable[str]:
    """How a Service is reached from outside by itself, one label each."""
    for ingress in service.status.load_balancer.ingress:
        yield ingress.ip or ingress.hostname
    if service.spec.type == "NodePort":
        yield ", ".join(f"node:{port.node_port}" for port in service.spec.ports if port.node_port)
    yield from service.spec.external_ips


def _ingress_vertex(ingress: Ingress) -> Vertex:
    hosts = tuple(dict.fromkeys(rule.host or "*" for rule in ingress.spec.rules))
    addresses = tuple(item.ip or item.hostname for item in ingress.status.load_balancer.ingress)
    return Vertex(
        id=f"ingress/{ingress.metadata.name}", kind="Ingress", name=ingress.metadata.name, detail=hosts + addresses
    )


def _paths(ingress: Ingress) -> Iterable[tuple[str, IngressBackend]]:
    for rule in ingress.spec.rules:
        for path in rule.http.paths if rule.http else ():
            yield path.path or "/", path.backend
    if ingress.spec.default_backend is not None:
        yield "default", ingress.spec.default_backend


def _depths(vertices: dict[str, Vertex], edges: dict[tuple[str, str], Edge]) -> dict[str, int]:
    """Longest path from the outside; what nobody calls starts at 1. A cycle is cut where a search would close it."""
    callees: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in sorted(edges):
        callees[source].append(target)
    finished: list[str] = []  # callees before callers
    forward: dict[str, list[str]] = {}

    def search(vertex: str, above: frozenset[str]) -> None:
        if vertex in forward:
            return
        forward[vertex] = [target for target in callees[vertex] if target not in above and target != vertex]
        for target in forward[vertex]:
            search(target, above | {vertex})
        finished.append(vertex)

    for vertex in sorted(vertices, key=lambda vertex: (vertex != OUTSIDE, vertex)):
        search(vertex, frozenset())
    depths = {vertex: 0 if vertex == OUTSIDE else 1 for vertex in vertices}
    for vertex in reversed(finished):
        for target in forward[vertex]:
            depths[target] = max(depths[target], depths[vertex] + 1)
    return depths
