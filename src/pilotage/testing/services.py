"""Services and EndpointSlices in one line, for tests of whoever consumes them.

Stands apart so that a table of cases keeps each case short; defaults are the most ordinary object.
"""

from collections.abc import Iterable
from typing import Any

from pilotage.api.core_v1 import (
    LoadBalancerIngress,
    LoadBalancerStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from pilotage.api.discovery_v1 import SERVICE_NAME_LABEL, Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta


def make_port(text: str) -> ServicePort:
    """`[name:]port[>target][@nodePort][/PROTOCOL]`: `80`, `http:80`, `53/UDP`, `http:80@30080`."""
    text, _, protocol = text.partition("/")
    text, _, node_port = text.partition("@")
    text, _, target = text.partition(">")
    name, _, port = text.rpartition(":")
    return ServicePort(
        name=name,
        port=int(port),
        protocol=protocol or "TCP",
        node_port=int(node_port or 0),
        target_port=int(target) if target.isdigit() else target or int(port),
    )


def make_service(
    name: str = "web",
    cluster_ip: str = "10.96.0.1",
    ports: Iterable[str] = ("80",),
    *,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    ingress: Iterable[str] = (),
    **spec: Any,
) -> Service:
    """A Service; `ingress` are its load balancer's addresses, other keywords are fields of the spec."""
    spec.setdefault("cluster_ips", (cluster_ip,))
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}, creation_timestamp=created),
        spec=ServiceSpec(cluster_ip=cluster_ip, ports=tuple(make_port(port) for port in ports), **spec),
        status=ServiceStatus(
            load_balancer=LoadBalancerStatus(ingress=tuple(LoadBalancerIngress(ip=ip) for ip in ingress))
        ),
    )


def make_endpoint(text: str) -> Endpoint:
    """`address[@node][=zone][!]`; a trailing `!` is not ready, `~` terminating but serving, `-` terminating only."""
    state = text[-1] if text[-1] in "!~-" else ""
    text = text.removesuffix(state)
    text, _, zone = text.partition("=")
    address, _, node = text.partition("@")
    conditions = {
        "": EndpointConditions(ready=True, serving=True, terminating=False),
        "!": EndpointConditions(ready=False, serving=False, terminating=False),
        "~": EndpointConditions(ready=False, serving=True, terminating=True),
        "-": EndpointConditions(ready=False, serving=False, terminating=True),
    }[state]
    return Endpoint(addresses=(address,), conditions=conditions, node_name=node, zone=zone)


def make_slice(
    service: str = "web",
    endpoints: Iterable[str | Endpoint] = (),
    ports: Iterable[str] = ("8080",),
    *,
    namespace: str = "default",
    name: str = "",
    address_type: str = "IPv4",
) -> EndpointSlice:
    """A slice of `service`; endpoints as in `make_endpoint`, ports as `[name:]port[/PROTOCOL]`."""
    parsed = [make_port(port) for port in ports]
    return EndpointSlice(
        metadata=ObjectMeta(name=name or f"{service}-1", namespace=namespace, labels={SERVICE_NAME_LABEL: service}),
        address_type=address_type,
        endpoints=tuple(make_endpoint(one) if isinstance(one, str) else one for one in endpoints),
        ports=tuple(EndpointPort(name=port.name, port=port.port, protocol=port.protocol) for port in parsed),
    )
