"""Objects → which names shall have which addresses.

Hostnames come from where users of external-dns write them: the annotation on Services, the rules of Ingresses, the
listeners of Gateways and the hostnames of HTTPRoutes. Several objects may share a name; their addresses are joined.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.api.core_v1 import Service
from pilotage.api.networking_v1 import Ingress
from pilotage.dns.core.name import Name, from_text, is_within

HOSTNAME_ANNOTATION = "external-dns.alpha.kubernetes.io/hostname"
TTL_ANNOTATION = "external-dns.alpha.kubernetes.io/ttl"
TARGET_ANNOTATION = "external-dns.alpha.kubernetes.io/target"
TTL_DEFAULT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One name."""

    records: frozenset[tuple[str, str]]
    """(type, value): A and AAAA, or one CNAME."""
    ttl: int
    resource: str
    """`service/namespace/name` of the first object that wants it."""


def from_service(service: Service) -> Iterable[tuple[str, str, int, tuple[str, ...]]]:
    """(hostname, resource, TTL, targets) for each hostname of a Service with load balancer or targets by hand."""
    meta = service.metadata
    status = service.status.load_balancer.ingress
    targets = _targets(meta.annotations, [(part.ip, part.hostname) for part in status])
    for hostname in _split(meta.annotations.get(HOSTNAME_ANNOTATION, "")):
        yield hostname, f"service/{meta.key}", _ttl(meta.annotations), targets


def from_ingress(ingress: Ingress) -> Iterable[tuple[str, str, int, tuple[str, ...]]]:
    """The same for the hosts of an Ingress's rules and its annotation."""
    meta = ingress.metadata
    status = ingress.status.load_balancer.ingress
    targets = _targets(meta.annotations, [(part.ip, part.hostname) for part in status])
    hosts = [rule.host for rule in ingress.spec.rules if rule.host]
    for hostname in dict.fromkeys((*hosts, *_split(meta.annotations.get(HOSTNAME_ANNOTATION, "")))):
        yield hostname, f"ingress/{meta.key}", _ttl(meta.annotations), targets


def from_gateways(
    gateways: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[str, str, int, tuple[str, ...]]]:
    """Hostnames of listeners, and of HTTPRoutes that name the Gateway as parent (documents as the API writes them)."""
    by_key = {_key(gateway): gateway for gateway in gateways}
    hosts: dict[str, dict[str, None]] = {
        key: {listener["hostname"]: None for listener in gateway["spec"].get("listeners", []) if "hostname" in listener}
        for key, gateway in by_key.items()
    }
    for route in routes:
        namespace = route["metadata"].get("namespace", "")
        for parent in route.get("spec", {}).get("parentRefs", []):
            key = f"{parent.get('namespace', namespace)}/{parent['name']}"
            if parent.get("kind", "Gateway") == "Gateway" and key in hosts:
                hosts[key].update(dict.fromkeys(route["spec"].get("hostnames", [])))
    for key, names in hosts.items():
        gateway = by_key[key]
        annotations = gateway["metadata"].get("annotations", {})
        addresses = gateway.get("status", {}).get("addresses", [])
        pairs = [
            ("", part["value"]) if part.get("type") == "Hostname" else (part["value"], "")
            for part in addresses
            if part.get("value")
        ]
        for hostname in names:
            yield hostname, f"gateway/{key}", _ttl(annotations), _targets(annotations, pairs)


def join(
    claims: Iterable[tuple[str, str, int, tuple[str, ...]]], zone: Name
) -> tuple[dict[Name, Wanted], tuple[str, ...]]:
    """Name → what it shall have, for names inside `zone`; and what cannot be published, for people."""
    wanted: dict[Name, Wanted] = {}
    problems: list[str] = []
    for hostname, resource, ttl, targets in sorted(claims):
        try:
            name = from_text(hostname)
        except ValueError:
            problems.append(f"{resource}: {hostname[:80]!r} is not a domain name")
            continue
        if not is_within(name, zone) or name == zone or not targets:
            continue  # another zone's, or not reachable yet
        records = frozenset(_record(target) for target in targets)
        before = wanted.get(name)
        if before is not None:
            records |= before.records
        if any(kind == "CNAME" for kind, _ in records) and len(records) > 1:
            problems.append(f"{resource}: {hostname} would have a CNAME and other records")
            continue
        first = before.resource if before is not None else resource
        wanted[name] = Wanted(records=records, ttl=min(ttl, before.ttl if before else ttl), resource=first)
    return wanted, tuple(problems)


def _key(document: Mapping[str, Any]) -> str:
    meta = document["metadata"]
    return f"{meta.get('namespace', '')}/{meta['name']}"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _ttl(annotations: Mapping[str, str]) -> int:
    text = annotations.get(TTL_ANNOTATION, "").removesuffix("s")
    return min(max(int(text), 1), 86_400) if text.isdecimal() else TTL_DEFAULT


def _targets(annotations: Mapping[str, str], status: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    by_hand = _split(annotations.get(TARGET_ANNOTATION, ""))
    return tuple(by_hand or (address or hostname for address, hostname in status if address or hostname))


def _record(target: str) -> tuple[str, str]:
    try:
        address = ipaddress.ip_address(target)
    except ValueError:
        return "CNAME", target.lower().removesuffix(".") + "."
    return ("A" if address.version == 4 else "AAAA"), str(address)
