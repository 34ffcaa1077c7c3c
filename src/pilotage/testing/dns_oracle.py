"""What a cluster's DNS must answer, worked out by another route than the server's: as the text of a zone.

Apart from `dns` (constructors) because it shares nothing with the server: names are strings, records are lines, a name
exists because a line's owner is it or below it. Slow and plain on purpose; differential and churn tests hold the server
against it. Follows the Kubernetes DNS specification 1.1.0, and in the three places where we go beyond it, the words of
`dns.core.records`: SRV at the Service's own name, endpoint names under ClusterIP Services, NODATA for dangling aliases.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice

ZONE = "cluster.local."
SOA = f"ns.dns.{ZONE} hostmaster.{ZONE} 0 7200 1800 86400 5"
Line = tuple[str, str, str]  # owner, type, data; lower-case, absolute


@dataclass(frozen=True, slots=True)
class Expected:
    """The sections as sets of lines; TTLs and order are nobody's business."""

    rcode: str
    answer: frozenset[Line] = frozenset()
    authority: frozenset[Line] = frozenset()
    additional: frozenset[Line] = frozenset()


@dataclass(slots=True)
class Oracle:
    """One state of the cluster."""

    data: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    existing: set[str] = field(default_factory=set)

    def zone_text(self) -> str:
        """For a server, or a library, that reads zone files. Names without records are kept alive by nothing there."""
        apex = f"{ZONE} 5 IN SOA {SOA}\n"
        return apex + "".join(
            f"{owner} 5 IN {kind} {text}\n" for (owner, kind), texts in self.data.items() for text in texts
        )

    def answer(self, name: str, rtype: str) -> Expected:
        """For a name in the zone, or a reverse name."""
        name = name.lower()
        found = self.lines(name, rtype)
        if found:
            return Expected("NOERROR", found, additional=self._targets(found) if rtype == "SRV" else frozenset())
        alias = self.data.get((name, "CNAME"))
        if alias and rtype in ("A", "AAAA"):
            chain = self._chase(name, rtype, 0)
            return Expected("NOERROR", chain) if chain else self._negative("NOERROR", name)
        return self._negative("NOERROR" if name in self.existing else "NXDOMAIN", name)

    def lines(self, name: str, rtype: str) -> frozenset[Line]:
        return frozenset((name, rtype, text) for text in self.data.get((name, rtype), ()))

    def _chase(self, name: str, rtype: str, depth: int) -> frozenset[Line]:
        found = self.lines(name, rtype)
        alias = self.lines(name, "CNAME")
        if found or not alias or depth > 10:
            return found
        ((_, _, target),) = alias
        end = self._chase(target, rtype, depth + 1)
        return alias | end if end else frozenset()

    def _targets(self, found: frozenset[Line]) -> frozenset[Line]:
        targets = {text.split()[3] for _, _, text in found}
        return frozenset(line for target in targets for kind in ("A", "AAAA") for line in self.lines(target, kind))

    def _negative(self, rcode: str, name: str) -> Expected:
        return Expected(rcode, authority=frozenset({(ZONE, "SOA", SOA)}) if name.endswith("." + ZONE) else frozenset())


def oracle(services: Iterable[Service], slices: Iterable[EndpointSlice], namespaces: Iterable[str]) -> Oracle:
    """The whole cluster's."""
    made = Oracle()
    made.data[(f"dns-version.{ZONE}", "TXT")] = ['"1.1.0"']
    by_service: dict[tuple[str, str], list[EndpointSlice]] = {}
    for part in slices:
        by_service.setdefault((part.metadata.namespace, part.service_name), []).append(part)
    for service in services:
        own = by_service.get((service.metadata.namespace, service.metadata.name), [])
        for owner, kind, text in service_lines(service, own):
            texts = made.data.setdefault((owner, kind), [])
            if text not in texts:
                texts.append(text)
    for owner, _ in [*made.data]:
        while owner and owner not in made.existing:
            made.existing.add(owner)
            owner = owner.partition(".")[2]
    made.existing |= {f"svc.{ZONE}", f"pod.{ZONE}", ZONE}
    made.existing |= {f"{namespace}.{kind}.{ZONE}" for namespace in namespaces for kind in ("svc", "pod")}
    return made


def service_lines(service: Service, slices: Sequence[EndpointSlice]) -> list[Line]:
    """Everything one Service and its slices say, reverse names too."""
    spec = service.spec
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{ZONE}"
    if spec.type == "ExternalName":
        return _external(name, spec.external_name)
    lines: list[Line] = []
    ready = [
        (part, endpoint, (endpoint.hostname or _dashes(endpoint.addresses[0])).lower())
        for part in slices
        for endpoint in part.endpoints
        if endpoint.conditions.ready is not False or spec.publish_not_ready_addresses
    ]
    pointed: dict[str, str] = {}
    for _, endpoint, label in ready:
        address = endpoint.addresses[0]
        lines.append((f"{label}.{name}", *_address(address)))
        pointed[address] = min(label, pointed.get(address, label))
    lines += [(_reverse(address), "PTR", f"{label}.{name}") for address, label in pointed.items()]
    targets: list[tuple[str, str, int, str]] = []
    if spec.cluster_ip == "None":
        lines += [(name, *_address(endpoint.addresses[0])) for _, endpoint, _ in ready]
        targets = [(p.name, p.protocol, p.port or 0, f"{label}.{name}") for part, _, label in ready for p in part.ports]
    elif spec.cluster_ip:
        addresses = spec.cluster_ips or (spec.cluster_ip,)
        lines += [(name, *_address(address)) for address in addresses]
        lines += [(_reverse(address), "PTR", name) for address in addresses]
        targets = [(port.name, port.protocol, port.port, name) for port in spec.ports]
    groups: dict[str, set[tuple[int, str]]] = {}
    for port_name, protocol, port, target in targets:
        groups.setdefault(name, set()).add((port, target))
        if port_name:
            groups.setdefault(f"_{port_name}._{protocol}.{name}".lower(), set()).add((port, target))
    for owner, members in groups.items():
        weight = max(1, 100 // len(members))
        lines += [(owner, "SRV", f"0 {weight} {port} {target}") for port, target in members]
    return lines


def _external(name: str, target: str) -> list[Line]:
    try:
        ipaddress.ip_address(target)
    except ValueError:
        return [(name, "CNAME", target.lower().removesuffix(".") + ".")]
    return []


def _address(text: str) -> tuple[str, str]:
    address = ipaddress.ip_address(text)
    return ("A" if address.version == 4 else "AAAA"), str(address)


def _dashes(address: str) -> str:
    label = address.replace(".", "-").replace(":", "-")
    return label + "0" if label.endswith("-") else label


def _reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + "."
