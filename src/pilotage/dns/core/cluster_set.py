"""Imported Services → names in the cluster set's zone (KEP-1645, Multi-Cluster Services API).

A second zone beside the cluster's own, by the same algorithm over other objects: a ServiceImport is read as the Service
it stands for, and its slices are those that carry the multicluster labels. One difference: an endpoint's name has the
cluster it comes from in it, `host.cluster.service.namespace.svc.clusterset.local`, since two clusters may each have a
`db-0`.

Fed by `imports`; asked by `table`, which leaves names outside its own zone to it. Leaves out PTR: the address of an
endpoint already has a name in its own cluster, and one answer must not depend on who asks.
"""

from collections.abc import Iterable
from dataclasses import replace as replaced
from typing import ClassVar

from msgspec.structs import replace

from pilotage.api.codec import Value
from pilotage.api.core_v1 import Service, ServicePort, ServiceSpec
from pilotage.api.discovery_v1 import SERVICE_NAME_LABEL, EndpointSlice
from pilotage.api.meta_v1 import Object
from pilotage.dns.core.name import LABEL_BYTES_MAX, Name
from pilotage.dns.core.record import SRV, Record
from pilotage.dns.core.records import (
    RecordSets,
    ZoneSettings,
    endpoint_records,
    service_name,
)
from pilotage.dns.core.table import Table

IMPORTED_LABEL = "multicluster.kubernetes.io/service-name"
SOURCE_LABEL = "multicluster.kubernetes.io/source-cluster"


class ServiceImportSpec(Value):
    type: str = "ClusterSetIP"  # or Headless
    ips: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()


class ServiceImport(Object):
    """A Service of the cluster set, as one of its clusters sees it."""

    api_version: ClassVar[str] = "multicluster.x-k8s.io/v1alpha1"
    kind: ClassVar[str] = "ServiceImport"
    plural: ClassVar[str] = "serviceimports"

    spec: ServiceImportSpec = ServiceImportSpec()


def as_service(imported: ServiceImport) -> Service:
    """The Service that an import stands for."""
    spec = imported.spec
    address = "None" if spec.type == "Headless" else (spec.ips[0] if spec.ips else "")
    return Service(
        metadata=imported.metadata,
        spec=ServiceSpec(cluster_ip=address, cluster_ips=spec.ips, ports=spec.ports),
    )


def as_slice(part: EndpointSlice) -> EndpointSlice | None:
    """The slice as the import's own; None for one that is not imported."""
    owner = part.metadata.labels.get(IMPORTED_LABEL)
    if not owner:
        return None
    labels = {SERVICE_NAME_LABEL: owner, SOURCE_LABEL: part.metadata.labels.get(SOURCE_LABEL, "")}
    return replace(part, metadata=replace(part.metadata, labels=labels))


def cluster_set_table(settings: ZoneSettings, zone: Name) -> Table:
    """An empty table for `zone`, with everything else as the cluster's own zone has it."""
    return Table(replaced(settings, zone=zone, pods="disabled", reverse_zones=()), recursion=False, endpoints=imported)


def imported(service: Service, slices: Iterable[EndpointSlice], settings: ZoneSettings) -> RecordSets:
    """As `endpoint_records`, with the source cluster in the endpoints' names."""
    name = service_name(service.metadata.namespace, service.metadata.name, settings)
    clusters: dict[bytes, list[EndpointSlice]] = {}
    for part in slices:
        cluster = part.metadata.labels.get(SOURCE_LABEL, "").lower().encode("ascii", "replace")
        if 0 < len(cluster) <= LABEL_BYTES_MAX and b"." not in cluster:
            clusters.setdefault(cluster, []).append(part)
    merged: dict[Name, dict[int, dict[Record, None]]] = {}
    for cluster in sorted(clusters):
        for owner, sets in endpoint_records(service, clusters[cluster], settings).items():
            moved = _moved(owner, name, cluster)
            if moved != owner:
                merged.setdefault((cluster, *name), {})
            into = merged.setdefault(moved, {})
            for rtype, records in sets.items():
                for record in records:
                    data = tuple(_moved(x, name, cluster) if isinstance(x, tuple) else x for x in record.data)
                    into.setdefault(rtype, {})[record._replace(owner=moved, data=data)] = None
    return {
        owner: {rtype: _shared_weight(rtype, tuple(records)) for rtype, records in sets.items()}
        for owner, sets in merged.items()
    }


def _moved(owner: Name, name: Name, cluster: bytes) -> Name:
    """An endpoint's own name with its cluster in it; names of ports and of the Service as they are."""
    is_endpoint = len(owner) == len(name) + 1 and owner[1:] == name and not owner[0].startswith(b"_")
    return (owner[0], cluster, *name) if is_endpoint else owner


def _shared_weight(rtype: int, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """SRV weights are shares of all clusters' endpoints, not of one's."""
    if rtype != SRV:
        return records
    weight = max(1, 100 // len(records)).to_bytes(2, "big")
    shared = []
    for record in records:
        numbers, target = record.data
        assert isinstance(numbers, bytes)
        shared.append(record._replace(data=(numbers[:2] + weight + numbers[4:], target)))
    return tuple(shared)
