"""The columns of Services, endpoints, Ingresses and what surrounds them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pilotage.apiserver.core.columns.column import (
    AGE,
    NAME,
    NONE,
    Cell,
    Column,
    dig,
    joined,
    map_text,
    selector_text,
    text,
)
from pilotage.apiserver.core.record import Document

# A cell, not a report: beyond this many entries kubectl's own columns say how many there are more.
_ENTRIES_MAX = 3


def _bounded(entries: Iterable[str]) -> str:
    listed = list(entries)
    if not listed:
        return NONE
    shown = ",".join(listed[:_ENTRIES_MAX])
    more = len(listed) - _ENTRIES_MAX
    return f"{shown} + {more} more..." if more > 0 else shown


def _external(document: Document, now: datetime) -> Cell:
    spec = document["spec"]
    external = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName") or NONE)
        case "LoadBalancer":
            entries = dig(document, "status.loadBalancer.ingress") or ()
            external = [str(item.get("ip") or item.get("hostname")) for item in entries] + external
            return ",".join(external) or "<pending>"
    return ",".join(external) or NONE


def _ports(document: Document, now: datetime) -> Cell:
    shown = []
    for port in document["spec"].get("ports") or ():
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


def _endpoints(document: Document, now: datetime) -> Cell:
    pairs = []
    for subset in document.get("subsets") or ():
        for address in subset.get("addresses") or ():
            pairs += [f"{address['ip']}:{port['port']}" for port in subset.get("ports") or ()] or [address["ip"]]
    return _bounded(pairs)


def _slice_ports(document: Document, now: datetime) -> Cell:
    ports = document.get("ports")
    if ports is None:
        return "<unset>"
    return _bounded(str(port.get("port") or "*") for port in ports) if ports else "<unset>"


def _slice_addresses(document: Document, now: datetime) -> Cell:
    addresses = [address for item in document.get("endpoints") or () for address in item.get("addresses") or ()]
    return _bounded(addresses) if addresses else "<unset>"


def _hosts(document: Document, now: datetime) -> Cell:
    hosts = [rule["host"] for rule in dig(document, "spec.rules") or () if rule.get("host")]
    return _bounded(hosts) if hosts else "*"


def _load_balancer(document: Document, now: datetime) -> Cell:
    entries: Iterable[dict[str, Any]] = dig(document, "status.loadBalancer.ingress") or ()
    return ",".join(str(item.get("ip") or item.get("hostname")) for item in entries)


def _parameters(document: Document, now: datetime) -> Cell:
    parameters = dig(document, "spec.parameters")
    if not parameters:
        return NONE
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    return f"{parameters['kind']}{group}/{parameters['name']}"


NETWORKING: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "services"): (
        NAME,
        Column("Type", text("spec.type", "ClusterIP")),
        Column("Cluster-IP", text("spec.clusterIP", NONE)),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", lambda document, now: map_text(dig(document, "spec.selector")), priority=1),
    ),
    ("", "endpoints"): (NAME, Column("Endpoints", _endpoints), AGE),
    ("discovery.k8s.io", "endpointslices"): (
        NAME,
        Column("AddressType", text("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_addresses),
        AGE,
    ),
    ("networking.k8s.io", "ingresses"): (
        NAME,
        Column("Class", text("spec.ingressClassName", NONE)),
        Column("Hosts", _hosts),
        Column("Address", _load_balancer),
        Column("Ports", lambda document, now: "80, 443" if dig(document, "spec.tls") else "80"),
        AGE,
    ),
    ("networking.k8s.io", "ingressclasses"): (
        NAME,
        Column("Controller", text("spec.controller")),
        Column("Parameters", _parameters),
        AGE,
    ),
    ("networking.k8s.io", "networkpolicies"): (
        NAME,
        Column("Pod-Selector", lambda document, now: selector_text(dig(document, "spec.podSelector"))),
        AGE,
    ),
    ("networking.k8s.io", "ipaddresses"): (
        NAME,
        Column(
            "ParentRef",
            lambda document, now: "/".join(
                str(dig(document, f"spec.parentRef.{part}") or "") for part in ("resource", "namespace", "name")
            ),
        ),
        AGE,
    ),
    ("networking.k8s.io", "servicecidrs"): (NAME, Column("CIDRs", joined("spec.cidrs")), AGE),
}
