"""Services and EndpointSlices as the proxy sees them: service ports with their endpoints, one per address family.

Stands apart from `plan` so that no rule of Kubernetes reaches the code that fills maps, and no map reaches this. Fed by
the proxier with API objects; called for one Service at a time, so a change costs what the Service holds. Leaves out the
choice of endpoints (`topology`) and every kernel word.

Specification: Kubernetes Service and EndpointSlice API; KEP-752, KEP-1669 and KEP-1672 (terminating endpoints),
KEP-2086 (internalTrafficPolicy).
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilotage.api.core_v1 import Service
from pilotage.api.core_v1 import ServicePort as ApiServicePort
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.nft.core.types import encode_address
from pilotage.proxy.core.slim import WEIGHT_ANNOTATION

SERVICE_PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
_ADDRESS_TYPES = {"ip": "IPv4", "ip6": "IPv6"}
FAMILIES = ("ip", "ip6")
WEIGHT_MAX = 100
AFFINITY_S_MAX = 86_400  # the API's own bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address and port behind a service port."""

    address: str
    packed: bytes  # the address in network order
    port: int
    ready: bool
    serving: bool  # answers, though it may be on its way out
    terminating: bool
    node: str = ""  # empty: not on a node of the cluster
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    weight: int = 1  # share of connections beside the others; 1 to WEIGHT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """The unit the proxy programs: one port of one Service in one address family."""

    service: str  # namespace/name
    name: str  # empty: the only port
    family: str  # ip or ip6
    protocol: str  # tcp, udp or sctp
    port: int
    cluster_ip: str
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()  # those with ipMode VIP (KEP-1860): the node answers for them
    node_port: int = 0  # 0: none
    affinity_s: int = 0  # 0: none; else how long a client stays with its endpoint
    source_ranges: tuple[str, ...] = ()  # who may use the load balancer's addresses; empty: everybody
    internal_local: bool = False
    external_local: bool = False
    health_check_node_port: int = 0
    endpoints: tuple[Endpoint, ...] = ()  # by address and port, each once

    @property
    def is_external(self) -> bool:
        return bool(self.external_ips or self.load_balancer_ips or self.node_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a Service that cannot be carried out as written."""

    service: str
    reason: str  # CamelCase, stable
    message: str


# Reasons why what a Service asks may be beyond a backend on some kernel.
SESSION_AFFINITY_NOT_KEPT = "SessionAffinityNotKept"


def beyond(service: Service, limits: Mapping[str, str]) -> list[Problem]:
    """What `service` asks of a backend that has these limits: reason → message."""
    asked = [SESSION_AFFINITY_NOT_KEPT] if service.spec.session_affinity == "ClientIP" and is_proxied(service) else []
    return [Problem(service=service.metadata.key, reason=one, message=limits[one]) for one in asked if one in limits]


def is_proxied(service: Service) -> bool:
    """Whether the Service has a virtual address that this proxy answers for."""
    labels = service.metadata.labels
    return (
        service.spec.type != "ExternalName"
        and service.spec.cluster_ip not in ("", "None")
        and SERVICE_PROXY_NAME_LABEL not in labels  # another proxy's, by request
        and HEADLESS_LABEL not in labels
    )


def service_ports(
    service: Service, slices: Iterable[EndpointSlice], problems: list[Problem] | None = None
) -> tuple[ServicePort, ...]:
    """The service ports of one Service, by family, then in the order of the spec; empty if it is not proxied.

    What is unusable in it is left out and reported in `problems`.
    """
    if not is_proxied(service):
        return ()
    found = problems if problems is not None else []
    _name_wrong_addresses(service, found)
    by_type: dict[str, list[EndpointSlice]] = {}
    for one in slices:
        by_type.setdefault(one.address_type, []).append(one)
    result: list[ServicePort] = []
    for cluster_ip in service.spec.cluster_ips or (service.spec.cluster_ip,):
        family = family_of(cluster_ip)
        if family is None:
            found.append(Problem(service=service.metadata.key, reason="InvalidClusterIP", message=cluster_ip[:64]))
            continue
        own = by_type.get(_ADDRESS_TYPES[family], ())
        result += _ports_of_family(service, family, cluster_ip, own, found)
    return tuple(result)


def _ports_of_family(
    service: Service, family: str, cluster_ip: str, slices: Sequence[EndpointSlice], problems: list[Problem]
) -> list[ServicePort]:
    spec = service.spec
    key = service.metadata.key
    affinity_s = _affinity_s(service, problems)
    external = [
        address
        for address in dict.fromkeys(spec.external_ips)
        if address != cluster_ip and family_of(address) == family
    ]
    ingress = service.status.load_balancer.ingress if spec.type == "LoadBalancer" else ()
    virtual = dict.fromkeys(one.ip for one in ingress if one.ip_mode != "Proxy")
    balanced = [ip for ip in virtual if family_of(ip) == family and ip not in external and ip != cluster_ip]
    check_port = spec.health_check_node_port
    result = []
    for port in spec.ports:
        protocol = port.protocol.lower()
        if protocol not in ("tcp", "udp", "sctp"):
            problems.append(Problem(service=key, reason="UnknownProtocol", message=port.protocol[:64]))
            continue
        if not _is_port(port.port):
            problems.append(Problem(service=key, reason="InvalidPort", message=f"port {port.port}"))
            continue
        node_port = port.node_port if spec.type in ("NodePort", "LoadBalancer") else 0
        if node_port and not _is_port(node_port):
            problems.append(Problem(service=key, reason="InvalidPort", message=f"node port {node_port}"))
            node_port = 0
        result.append(
            ServicePort(
                service=key,
                name=port.name,
                family=family,
                protocol=protocol,
                port=port.port,
                cluster_ip=cluster_ip,
                external_ips=tuple(external),
                load_balancer_ips=tuple(balanced),
                node_port=node_port,
                affinity_s=affinity_s,
                source_ranges=_ranges(spec.load_balancer_source_ranges, family, key, problems) if balanced else (),
                internal_local=spec.internal_traffic_policy == "Local",
                external_local=spec.external_traffic_policy == "Local",
                health_check_node_port=check_port if spec.type == "LoadBalancer" and _is_port(check_port) else 0,
                endpoints=_endpoints(port, slices, family, key, problems),
            )
        )
    return result


def _is_port(number: int) -> bool:
    return 0 < number < 1 << 16


def _affinity_s(service: Service, problems: list[Problem]) -> int:
    """How long a client stays; 0: it does not."""
    if service.spec.session_affinity != "ClientIP":
        return 0
    asked = service.spec.session_affinity_config.client_ip.timeout_seconds
    used = min(max(asked, 1), AFFINITY_S_MAX)
    if used != asked:
        message = f"timeoutSeconds {asked} is not between 1 and {AFFINITY_S_MAX}; {used} is used"
        problems.append(Problem(service=service.metadata.key, reason="InvalidSessionAffinity", message=message))
    return used


def _name_wrong_addresses(service: Service, problems: list[Problem]) -> None:
    """Those that `_ports_of_family` leaves out because they are of no family."""
    balanced = (one.ip for one in service.status.load_balancer.ingress if one.ip and one.ip_mode != "Proxy")
    for reason, addresses in (("InvalidExternalIP", service.spec.external_ips), ("InvalidLoadBalancerIP", balanced)):
        for address in addresses:
            if family_of(address) is None:
                problems.append(Problem(service=service.metadata.key, reason=reason, message=f"{address[:64]!r}"))


def _endpoints(
    port: ApiServicePort, slices: Iterable[EndpointSlice], family: str, key: str, problems: list[Problem]
) -> tuple[Endpoint, ...]:
    """Endpoints of a service port over all slices, each address and port once.

    A slice says which number the port has on its endpoints, so a named target port may differ from pod to pod. While
    the controller moves an endpoint from one slice to another it may stand in both: the ready one counts.
    """
    found: dict[tuple[str, int], Endpoint] = {}
    size = 4 if family == "ip" else 16
    for one in slices:
        weight = _weight(one, key, problems)
        for target in one.ports:
            if target.name != port.name or target.protocol != port.protocol or target.port is None:
                continue
            if not _is_port(target.port):
                message = f"port {target.port} in EndpointSlice {one.metadata.name}"
                problems.append(Problem(service=key, reason="InvalidPort", message=message))
                continue
            for endpoint in one.endpoints:
                if not endpoint.addresses:
                    continue
                address = endpoint.addresses[0]  # KEP-752: consumers use the first only
                place = (address, target.port)
                known = found.get(place)
                if known is not None and (known.ready or not endpoint.is_ready):
                    continue
                try:
                    packed = encode_address(address, size)
                except ValueError:
                    message = f"{address[:64]!r} in EndpointSlice {one.metadata.name} is no {one.address_type} address"
                    problems.append(Problem(service=key, reason="InvalidEndpoint", message=message))
                    continue
                hints = endpoint.hints
                found[place] = Endpoint(
                    address=address,
                    packed=packed,
                    port=target.port,
                    ready=endpoint.is_ready,
                    serving=endpoint.is_serving,
                    terminating=endpoint.is_terminating,
                    node=endpoint.node_name,
                    zone_hints=tuple(zone.name for zone in hints.for_zones) if hints.for_zones else (),
                    node_hints=tuple(node.name for node in hints.for_nodes) if hints.for_nodes else (),
                    weight=weight,
                )
    return tuple(found[place] for place in sorted(found))


def _weight(one: EndpointSlice, key: str, problems: list[Problem]) -> int:
    """What the slice's annotation asks for each of its endpoints."""
    text = one.metadata.annotations.get(WEIGHT_ANNOTATION, "1")
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= WEIGHT_MAX and len(text) < 4:
        return int(text)
    message = f"{WEIGHT_ANNOTATION} of EndpointSlice {one.metadata.name} is no number from 1 to {WEIGHT_MAX}"
    problems.append(Problem(service=key, reason="InvalidWeight", message=message))
    return 1


def _ranges(ranges: Iterable[str], family: str, key: str, problems: list[Problem]) -> tuple[str, ...]:
    """Source ranges of one family, merged: an interval set refuses ranges that overlap.

    Differs from kube-proxy: when ranges are given but none is valid and of this family, nobody may enter, because
    whoever listed sources did not mean everybody.
    """
    narrow: list[ipaddress.IPv4Network] = []
    wide: list[ipaddress.IPv6Network] = []
    given = tuple(ranges)
    for text in given:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            problems.append(Problem(service=key, reason="InvalidSourceRange", message=text[:64]))
            continue
        if isinstance(network, ipaddress.IPv4Network):
            narrow.append(network)
        else:
            wide.append(network)
    if not given:
        return ()
    if family == "ip":
        return tuple(str(network) for network in ipaddress.collapse_addresses(narrow)) or ("0.0.0.0/32",)
    return tuple(str(network) for network in ipaddress.collapse_addresses(wide)) or ("::/128",)


def family_of(address: str) -> str | None:
    """`ip` or `ip6`; None for what is not an address."""
    family = "ip6" if ":" in address else "ip"
    try:
        encode_address(address, 16 if family == "ip6" else 4)
    except ValueError:
        return None
    return family
