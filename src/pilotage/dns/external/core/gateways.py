"""Gateways and the routes they accepted → claims.

Apart from `wanted` because hostnames come about between two objects: a listener's and a route's must agree, and the
Gateway must have accepted the route, lest a namespace publish names at an address that does not serve them.

The kinds are this package's own, with the fields that matter here. Source: Gateway API, gateway.networking.k8s.io.
Leaves out TCPRoute and UDPRoute, which have no hostnames.
"""

from collections.abc import Iterable
from typing import ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import Condition, Object
from pilotage.dns.external.core.annotations import Claim, concerns_us, hostnames, targets, ttl

GROUP = "gateway.networking.k8s.io"


class Listener(Value):
    name: str = ""
    hostname: str = ""
    port: int = 0
    protocol: str = ""


class GatewaySpec(Value):
    listeners: tuple[Listener, ...] = ()


class GatewayAddress(Value):
    value: str = ""


class GatewayStatus(Value):
    addresses: tuple[GatewayAddress, ...] = ()


class Gateway(Object):
    kind: ClassVar[str] = "Gateway"
    plural: ClassVar[str] = "gateways"

    spec: GatewaySpec = GatewaySpec()
    status: GatewayStatus = GatewayStatus()


class ParentReference(Value):
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""  # empty: the route's
    name: str = ""
    section_name: str = ""  # empty: every listener
    port: int = 0  # 0: any


class RouteSpec(Value):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()


class RouteParentStatus(Value):
    parent_ref: ParentReference = ParentReference()
    conditions: tuple[Condition, ...] = ()


class RouteStatus(Value):
    parents: tuple[RouteParentStatus, ...] = ()


class Route(Object):
    """Any kind of route that has hostnames."""

    protocols: ClassVar[frozenset[str]] = frozenset()  # of listeners that it may attach to

    spec: RouteSpec = RouteSpec()
    status: RouteStatus = RouteStatus()


class HTTPRoute(Route):
    kind: ClassVar[str] = "HTTPRoute"
    plural: ClassVar[str] = "httproutes"
    protocols: ClassVar[frozenset[str]] = frozenset({"HTTP", "HTTPS"})


class GRPCRoute(Route):
    kind: ClassVar[str] = "GRPCRoute"
    plural: ClassVar[str] = "grpcroutes"
    protocols: ClassVar[frozenset[str]] = frozenset({"HTTP", "HTTPS"})


class TLSRoute(Route):
    kind: ClassVar[str] = "TLSRoute"
    plural: ClassVar[str] = "tlsroutes"
    protocols: ClassVar[frozenset[str]] = frozenset({"TLS"})


KINDS: dict[str, type[Gateway] | type[Route]] = {
    kind.plural: kind for kind in (Gateway, HTTPRoute, GRPCRoute, TLSRoute)
}


def from_gateways(gateways: Iterable[Gateway], routes: Iterable[Route]) -> Iterable[Claim]:
    """A claim for each hostname of a listener, and of a route where an accepting Gateway listens for it."""
    by_key = {gateway.metadata.key: gateway for gateway in gateways if concerns_us(gateway.metadata.annotations)}
    for key, gateway in by_key.items():
        for hostname in dict.fromkeys(listener.hostname for listener in gateway.spec.listeners if listener.hostname):
            yield _claim(hostname, f"gateway/{key}", gateway, ttl(gateway.metadata.annotations))
    for route in routes:
        if not concerns_us(route.metadata.annotations):
            continue
        for reference in route.spec.parent_refs:
            parent = by_key.get(_parent_key(route, reference))
            if parent is None or reference.kind != "Gateway" or not _is_accepted(route, reference):
                continue
            seconds = ttl(route.metadata.annotations, ttl(parent.metadata.annotations))
            for hostname in _served(route, reference, parent):
                yield _claim(hostname, f"{route.kind.lower()}/{route.metadata.key}", parent, seconds)


def _claim(hostname: str, resource: str, gateway: Gateway, seconds: int) -> Claim:
    addresses = (address.value for address in gateway.status.addresses)
    return hostname, resource, seconds, targets(gateway.metadata.annotations, addresses)


def _parent_key(route: Route, reference: ParentReference) -> str:
    return f"{reference.namespace or route.metadata.namespace}/{reference.name}"


def _is_accepted(route: Route, reference: ParentReference) -> bool:
    wanted = (_parent_key(route, reference), reference.kind, reference.section_name, reference.port)
    for parent in route.status.parents:
        said = parent.parent_ref
        if (_parent_key(route, said), said.kind, said.section_name, said.port) == wanted:
            return any(item.type == "Accepted" and item.status == "True" for item in parent.conditions)
    return False


def _served(route: Route, reference: ParentReference, gateway: Gateway) -> Iterable[str]:
    """The hostnames that the route's and the listeners' have in common, each once."""
    asked = (*route.spec.hostnames, *hostnames(route.metadata.annotations)) or ("",)
    found: dict[str, None] = {}
    for listener in gateway.spec.listeners:
        if reference.section_name not in ("", listener.name) or reference.port not in (0, listener.port):
            continue
        if listener.protocol in route.protocols:
            found |= dict.fromkeys(common(listener.hostname, hostname) for hostname in asked)
    found.pop("", None)
    return found


def common(one: str, other: str) -> str:
    """The names that both mean, as one hostname; empty when there are none. An empty one means all names.

    A wildcard stands for one or more labels (Gateway API, Hostname).
    """
    one, other = one.lower(), other.lower()
    if not one or not other or one == other:
        return one or other
    for narrow, wide in ((one, other), (other, one)):
        if wide.startswith("*.") and narrow.endswith(wide[1:]):
            return narrow
    return ""
