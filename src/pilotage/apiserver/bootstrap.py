"""Objects every cluster has, made when the server starts: namespaces, priority classes, roles and bindings, the
`kubernetes` Service.

Stands apart because it is the server's only writing of its own accord. Idempotent: it creates what is missing and
corrects what it owns, through the same pipeline as everybody else's writes. Called once, before the server is ready.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from pilotage.api.catalogue import by_kind
from pilotage.apiserver.authentication import LOOPBACK
from pilotage.apiserver.authorization import bootstrap_objects, reconciled
from pilotage.apiserver.call import Call
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.kit import InvariantError
from pilotage.kit.clock import Clock

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
MANAGER = "kube-apiserver"

Decide = Callable[[Document | None, Document], Document | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the API is, as seen from inside the cluster."""

    service_cidr: str
    host: str  # where nodes reach the server
    port: int

    @property
    def cluster_ip(self) -> str:
        """The first address of the range, as kube-apiserver takes it."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def family(self) -> str:
        """IPv4 or IPv6."""
        return f"IPv{ipaddress.ip_address(self.cluster_ip).version}"


def kubernetes_service(place: Place) -> list[Document]:
    """The Service `kubernetes`, and its endpoint: this server, which no selector can find.

    A loopback address is left out: it would mean something else on every node.
    """
    name = {"name": "kubernetes", "namespace": "default"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    port = {"name": "https", "port": place.port, "protocol": "TCP"}
    service: Document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**name, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": place.cluster_ip,
            "clusterIPs": [place.cluster_ip],
            "ipFamilies": [place.family],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": place.port}],
        },
    }
    if ipaddress.ip_address(place.host).is_loopback:
        return [service]
    # The controller that mirrors Endpoints into slices must leave these to us.
    mirrored = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    endpoints: Document = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {**name, "labels": mirrored},
        "subsets": [{"addresses": [{"ip": place.host}], "ports": [port]}],
    }
    endpoint_slice: Document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**name, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": f"IPv{ipaddress.ip_address(place.host).version}",
        "endpoints": [{"addresses": [place.host], "conditions": {"ready": True}}],
        "ports": [port],
    }
    return [service, endpoints, endpoint_slice]


def priority_classes() -> list[Document]:
    """The classes of what a node or the cluster cannot do without."""
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": f"Used for system critical pods that must {what}",
        }
        for name, value, what in (
            ("system-cluster-critical", 2_000_000_000, "run in the cluster, but can be moved to another node"),
            ("system-node-critical", 2_000_001_000, "not be moved from their current node"),
        )
    ]


async def bootstrap(registry: Registry, clock: Clock, place: Place) -> None:
    """Make what is missing; namespaces first, for everything else lives in one."""
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]
    # Together: they share commits, and starting is what users wait for.
    await asyncio.gather(
        *(converge(registry, clock, document, _unless_there) for document in (*namespaces, *priority_classes()))
    )
    roles = [document for _, document in bootstrap_objects()]
    await asyncio.gather(*(converge(registry, clock, document, reconciled) for document in roles))
    for document in kubernetes_service(place):
        await converge(registry, clock, document, _owned)


async def converge(registry: Registry, clock: Clock, wanted: Document, decide: Decide) -> None:
    """Create or update one object to what `decide(existing, wanted)` returns; None leaves it alone."""
    group, _, version = wanted["apiVersion"].rpartition("/")
    resource = by_kind(group, version, wanted["kind"])
    if resource is None:
        raise InvariantError(f"bootstrap makes a {wanted['kind']}, which is not served")
    metadata = wanted["metadata"]
    call = Call(
        resource=resource,
        namespace=metadata.get("namespace", "") if resource.namespaced else "",
        name=metadata["name"],
        subresource="",
        user=LOOPBACK,
        now=clock.wall(),
        user_agent=MANAGER,
    )
    existing = registry.cache(resource).get(call.key)
    document = decide(existing.copy() if existing is not None else None, wanted)
    if document is None:
        return
    body = registry.pipeline.decode(call, document)
    await (registry.create(call, body) if existing is None else registry.update(call, body))


def _unless_there(existing: Document | None, wanted: Document) -> Document | None:
    return wanted if existing is None else None


def _owned(existing: Document | None, wanted: Document) -> Document | None:
    """Ours alone: whatever differs is put back; what other fields the server filled in stays."""
    if existing is None:
        return wanted
    changed = {**existing, **{key: value for key, value in wanted.items() if key not in ("metadata", "spec")}}
    if "spec" in wanted:
        changed["spec"] = {**existing["spec"], **wanted["spec"]}
    labels = {**(existing["metadata"].get("labels") or {}), **wanted["metadata"]["labels"]}
    changed["metadata"] = {**existing["metadata"], "labels": labels}
    return None if changed == existing else changed
