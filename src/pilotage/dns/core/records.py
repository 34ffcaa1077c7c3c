"""One Service and its EndpointSlices → the records of its names.

This is the Kubernetes DNS-Based Service Discovery specification 1.1.0; section numbers below are its own. Two halves,
because a question about a ClusterIP needs none of the Service's thousand endpoints: `service_records` (§2.3, §2.5) and
`endpoint_records` (§2.4). Called by `zone`; the union over all Services is the whole zone.

Beyond the specification, because users rely on it: SRV of all ports at the Service's own name, and endpoint names under
ClusterIP Services. Differs from CoreDNS, which also takes `http.tcp.web` for `_http._tcp.web` and answers addresses at
it: the specification knows neither, and a headless Service may have a host named `tcp`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import Endpoint, EndpointSlice
from pilotage.dns.core.name import LABEL_BYTES_MAX, Name, dashed, from_text, pack_address
from pilotage.dns.core.record import (
    AAAA,
    CNAME,
    SRV,
    A,
    Record,
    address_record,
    name_record,
    srv_record,
)

RecordSets = dict[Name, dict[int, tuple[Record, ...]]]
"""Owner name → type → records. A name with an empty dict is an empty non-terminal: it exists and has nothing."""

PROTOCOLS = {"TCP": b"_tcp", "UDP": b"_udp", "SCTP": b"_sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSettings:
    """What the zone's owner decides."""

    zone: Name
    """The cluster domain."""
    ttl: int = 5
    """Seconds; 0 ≤ ttl ≤ 3600."""
    negative_ttl: int | None = None
    """For names that an object may bring about any moment; None: `ttl`."""
    pods: str = "insecure"
    """Pod records: "disabled", "insecure" (the name's own address is echoed) or "verified" (a pod must have it)."""
    dns_service: tuple[str, str] = ("kube-system", "kube-dns")
    """Namespace and name of the Service that stands in NS records."""
    nameserver_addresses: tuple[bytes, ...] = ()
    """Packed addresses of `ns.dns.<zone>`, which stands in NS records where no such Service exists."""
    reverse_zones: tuple[Name, ...] = ()
    """Ranges whose unknown addresses are NXDOMAIN; an address outside them is the upstream's to know."""

    @property
    def negative(self) -> int:
        return self.ttl if self.negative_ttl is None else self.negative_ttl


@dataclass(frozen=True, slots=True)
class Host:
    """One endpoint name with its addresses, of both families."""

    label: bytes
    addresses: tuple[bytes, ...]


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None" and service.spec.type != "ExternalName"


def cluster_addresses(service: Service) -> tuple[bytes, ...]:
    """The packed ClusterIPs; none for headless, ExternalName and not yet allocated Services."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return ()
    packed = (pack_address(text) for text in (spec.cluster_ips or (spec.cluster_ip,)))
    return tuple(address for address in packed if address is not None)


def service_name(namespace: str, name: str, settings: ZoneSettings) -> Name:
    return (name.encode(), namespace.encode(), b"svc", *settings.zone)


def external_target(service: Service) -> Name | None:
    """Where an ExternalName Service points; None for one that is no name, such as an address literal."""
    text = service.spec.external_name
    if pack_address(text.removesuffix(".")) is not None:
        return None
    try:
        return from_text(text) or None
    except ValueError:
        return None


def service_records(service: Service, settings: ZoneSettings) -> RecordSets:
    """The names that need no endpoints: addresses and SRV of a ClusterIP (§2.3), CNAME of an ExternalName (§2.5)."""
    name = service_name(service.metadata.namespace, service.metadata.name, settings)
    ttl = settings.ttl
    if service.spec.type == "ExternalName":
        target = external_target(service)
        return {} if target is None else {name: {CNAME: (name_record(name, CNAME, target, ttl),)}}
    addresses = cluster_addresses(service)
    if not addresses:
        return {}
    ports = [(port.name, port.protocol, port.port) for port in service.spec.ports]
    return _with_ports(name, addresses, [(port, name) for port in ports], ttl)


def endpoint_records(service: Service, slices: Iterable[EndpointSlice], settings: ZoneSettings) -> RecordSets:
    """The names that endpoints make: all of a headless Service (§2.4), else only the endpoints' own names."""
    name = service_name(service.metadata.namespace, service.metadata.name, settings)
    ttl = settings.ttl
    everything = [part for part in slices if part.address_type != "FQDN"]
    hosts = _hosts(service, everything)
    if not hosts:
        return {}  # §2.4.1: no ready endpoint, no name
    records: RecordSets = {}
    if is_headless(service):
        targets = _targets(service, everything, name)
        records = _with_ports(name, [a for host in hosts for a in host.addresses], targets, ttl)
    for host in hosts:
        owner = (host.label, *name)
        records[owner] = _addresses(owner, host.addresses, ttl)
    return records


def endpoint_label(endpoint: Endpoint) -> bytes | None:
    """The first label of an endpoint's name: its hostname, else its address with dashes."""
    if endpoint.hostname:
        label = endpoint.hostname.lower().encode("ascii", "replace")
        return label if len(label) <= LABEL_BYTES_MAX and b"." not in label else None
    return dashed(endpoint.addresses[0]) if endpoint.addresses else None


def is_published(service: Service, endpoint: Endpoint) -> bool:
    return endpoint.is_ready or service.spec.publish_not_ready_addresses


def _hosts(service: Service, slices: list[EndpointSlice]) -> list[Host]:
    """Published endpoints grouped by name, in order of name: addresses of one hostname belong together."""
    found: dict[bytes, dict[bytes, None]] = {}
    for part in slices:
        for endpoint in part.endpoints:
            label = endpoint_label(endpoint) if is_published(service, endpoint) else None
            packed = pack_address(endpoint.addresses[0]) if endpoint.addresses else None
            if label is not None and packed is not None:
                found.setdefault(label, {})[packed] = None
    return [Host(label, tuple(sorted(found[label]))) for label in sorted(found)]


_Port = tuple[str, str, int]


def _targets(service: Service, slices: list[EndpointSlice], name: Name) -> list[tuple[_Port, Name]]:
    """Every port of every slice with the names of the endpoints that have it, in a stable order, each pair once."""
    pairs: dict[tuple[_Port, Name], None] = {}
    for part in slices:
        labels = [endpoint_label(e) for e in part.endpoints if is_published(service, e)]
        for port in part.ports:
            if port.port is not None:
                for label in labels:
                    if label is not None:
                        pairs[((port.name, port.protocol, port.port), (label, *name))] = None
    return sorted(pairs)


def _addresses(owner: Name, addresses: Iterable[bytes], ttl: int) -> dict[int, tuple[Record, ...]]:
    records = [address_record(owner, packed, ttl) for packed in dict.fromkeys(addresses)]
    by_type = {rtype: tuple(r for r in records if r.rtype == rtype) for rtype in (A, AAAA)}
    return {rtype: found for rtype, found in by_type.items() if found}


def _with_ports(name: Name, addresses: Iterable[bytes], targets: list[tuple[_Port, Name]], ttl: int) -> RecordSets:
    """Addresses at `name`; SRV at `_port._protocol.name` for named ports and, for all ports, at `name` itself."""
    records: RecordSets = {name: _addresses(name, addresses, ttl)}
    if targets:
        records[name][SRV] = _srv(name, [(port[2], target) for port, target in targets], ttl)
    named: dict[Name, list[tuple[int, Name]]] = {}
    for (port_name, protocol, port), target in targets:
        if port_name and protocol in PROTOCOLS:
            parent = (PROTOCOLS[protocol], *name)
            records.setdefault(parent, {})
            named.setdefault((b"_" + port_name.lower().encode(), *parent), []).append((port, target))
    for owner, found in named.items():
        records[owner] = {SRV: _srv(owner, found, ttl)}
    return records


def _srv(owner: Name, targets: list[tuple[int, Name]], ttl: int) -> tuple[Record, ...]:
    unique = dict.fromkeys(targets)
    weight = max(1, 100 // len(unique))
    return tuple(srv_record(owner, weight, port, target, ttl) for port, target in unique)
