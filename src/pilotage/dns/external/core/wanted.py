"""Objects → which names shall have which addresses.

Hostnames come from where users of external-dns write them: the annotation on Services, the rules of Ingresses, the
listeners of Gateways and their routes (`gateways`). Several objects may share a name; their addresses are joined.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pilotage.api.core_v1 import Service
from pilotage.api.networking_v1 import Ingress
from pilotage.dns.core.name import LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, from_text, is_within, wire_length
from pilotage.dns.external.core.annotations import Claim, concerns_us, hostnames, targets, ttl

PREFIX = b"_pilotage"
"""First label of the name at which the ownership of another is written."""
WILDCARD = b"_any"
"""Stands there for `*`."""
_HOST = re.compile(
    rf"[a-z0-9_]([a-z0-9_-]{{0,{LABEL_BYTES_MAX - 1}}})(\.[a-z0-9_]([a-z0-9_-]{{0,{LABEL_BYTES_MAX - 1}}}))*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One name."""

    records: frozenset[tuple[str, str]]
    """(type, value): A and AAAA, or one CNAME."""
    ttl: int
    resource: str
    """`service/namespace/name` of the first object that wants it."""


def from_service(service: Service) -> Iterable[Claim]:
    """A claim for each hostname of a Service: with a load balancer, external addresses, an external name or targets
    by hand."""
    meta, spec = service.metadata, service.spec
    if not concerns_us(meta.annotations):
        return
    found = [part.ip or part.hostname for part in service.status.load_balancer.ingress]
    if spec.type == "ExternalName":
        found = [spec.external_name]
    elif spec.external_ips:
        found = list(spec.external_ips)  # whoever routes to these need not know the balancer's
    for hostname in hostnames(meta.annotations):
        yield hostname, f"service/{meta.key}", ttl(meta.annotations), targets(meta.annotations, found)


def from_ingress(ingress: Ingress) -> Iterable[Claim]:
    """The same for the hosts of an Ingress's rules and TLS sections, and its annotation."""
    meta, spec = ingress.metadata, ingress.spec
    if not concerns_us(meta.annotations):
        return
    found = [part.ip or part.hostname for part in ingress.status.load_balancer.ingress]
    hosts = [rule.host for rule in spec.rules if rule.host]
    hosts += [host for tls in spec.tls for host in tls.hosts]
    for hostname in dict.fromkeys((*hosts, *hostnames(meta.annotations))):
        yield hostname, f"ingress/{meta.key}", ttl(meta.annotations), targets(meta.annotations, found)


def join(claims: Iterable[Claim], zone: Name) -> tuple[dict[Name, Wanted], tuple[str, ...]]:
    """Name → what it shall have, for names inside `zone`; and what cannot be published, for people."""
    wanted: dict[Name, Wanted] = {}
    problems: list[str] = []
    for hostname, resource, seconds, values in sorted(claims):
        try:
            name = _published_name(hostname)
            if not is_within(name, zone) or name == zone:
                continue  # another zone's
            records = frozenset(map(_record, values))
        except ValueError as error:
            problems.append(f"{resource}: {hostname[:80]!r}: {error}")
            continue
        if not records:
            continue  # not reachable yet
        before = wanted.get(name)
        if before is not None:
            records |= before.records
        if any(kind == "CNAME" for kind, _ in records) and len(records) > 1:
            problems.append(f"{resource}: {hostname} would have a CNAME and other records")
            continue
        first = before.resource if before is not None else resource
        wanted[name] = Wanted(records=records, ttl=min(seconds, before.ttl if before else seconds), resource=first)
    return wanted, tuple(problems)


def _published_name(hostname: str) -> Name:
    """Raises `ValueError` for what is no name, or cannot have its ownership written beside it."""
    try:
        name = from_text(hostname)
    except ValueError:
        raise ValueError("not a domain name") from None
    if not _HOST.fullmatch(hostname.lower().removesuffix(".").removeprefix("*.")):
        raise ValueError("not a host name")
    if name[0] in (PREFIX, WILDCARD) or wire_length(name) + len(PREFIX) + len(WILDCARD) > NAME_BYTES_MAX:
        raise ValueError("reserved for ownership records, or too long to have one")
    return name


def _record(target: str) -> tuple[str, str]:
    try:
        address = ipaddress.ip_address(target)
    except ValueError:
        text = target.lower().removesuffix(".")
        if not _HOST.fullmatch(text) or not from_text(text):
            raise ValueError(f"target {target[:80]!r} is neither an address nor a host name") from None
        return "CNAME", text + "."
    if address.version == 6 and address.scope_id:
        raise ValueError(f"target {target[:80]!r} means something on one link alone")
    return ("A" if address.version == 4 else "AAAA"), str(address)
