"""From a Service and a Pod to endpoints: rules that EndpointSlice and Endpoints controllers share.

Stands apart because both must publish the same addresses and ports. Pure. Source: Kubernetes documentation "Service",
"EndpointSlices"; KEP-1672 for terminating endpoints.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.api.core_v1 import Pod, Service, ServicePort
from pilotage.api.labels import from_match_labels
from pilotage.api.pods import is_terminal

HEADLESS_LABEL = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_TOLERATE_UNREADY = "service.alpha.kubernetes.io/tolerate-unready-endpoints"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port as one pod serves it: the Service port's name and protocol, the pod's number."""

    name: str
    protocol: str
    port: int
    app_protocol: str = ""


def selects(service: Service, pod: Pod) -> bool:
    """Whether the Service's selector picks the pod; a Service without one picks none."""
    return bool(service.spec.selector) and from_match_labels(service.spec.selector).matches(pod.metadata.labels)


def is_addressable(pod: Pod) -> bool:
    """Whether the pod appears at all: it has an address and its containers have not ended for good."""
    return bool(pod.status.pod_ip) and not is_terminal(pod)


def addresses(pod: Pod, family: str) -> tuple[str, ...]:
    """The pod's addresses of a family, "IPv4" or "IPv6"."""
    known = tuple(item.ip for item in pod.status.pod_ips) or (pod.status.pod_ip,)
    return tuple(ip for ip in known if ip and (":" in ip) == (family == "IPv6"))


def publishes_not_ready(service: Service) -> bool:
    return service.spec.publish_not_ready_addresses or service.metadata.annotations.get(_TOLERATE_UNREADY) == "true"


def families(service: Service) -> tuple[str, ...]:
    """The address families a Service's endpoints are published in."""
    if service.spec.ip_families:
        return service.spec.ip_families
    found = tuple(dict.fromkeys("IPv6" if ":" in ip else "IPv4" for ip in service.spec.cluster_ips if ip != "None"))
    return found or ("IPv4",)


def ports(service: Service, pod: Pod) -> tuple[Port, ...]:
    """The ports under which `pod` serves the Service; one whose name the pod does not know is left out."""
    found = []
    for item in service.spec.ports:
        number = target_port(pod, item)
        if number is not None:
            found.append(Port(item.name, item.protocol, number, item.app_protocol))
    return tuple(found)


def target_port(pod: Pod, port: ServicePort) -> int | None:
    """The pod's number for a Service port: stated, or looked up by name among its containers (sidecars included)."""
    target = port.target_port or port.port
    if isinstance(target, int):
        return target
    sidecars = (container for container in pod.spec.init_containers if container.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for candidate in container.ports:
            if candidate.name == target and candidate.protocol == port.protocol:
                return candidate.container_port
    return int(target) if target.isdigit() else None


def hostname(service: Service, pod: Pod) -> str:
    """The name the endpoint gets in DNS under a headless Service: the pod's, if it says it belongs there."""
    belongs = pod.spec.subdomain == service.metadata.name and pod.metadata.namespace == service.metadata.namespace
    return pod.spec.hostname if belongs else ""


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None"


def copied_labels(service: Service, reserved: Iterable[str]) -> dict[str, str]:
    """The Service's labels that its endpoint objects carry, without those that say who made them."""
    labels: Mapping[str, str] = service.metadata.labels
    return {key: value for key, value in labels.items() if key not in set(reserved)}


def endpoint_inputs(pod: Pod) -> tuple[object, ...]:
    """Everything of a pod that any endpoint may show; most pod updates (probe times, restarts) change none of it."""
    return (
        pod.metadata.uid,
        pod.metadata.labels,
        pod.metadata.is_deleting,
        pod.spec.node_name,
        pod.spec.hostname,
        pod.spec.subdomain,
        pod.status.pod_ips or pod.status.pod_ip,
        is_terminal(pod),
        pod.status.is_ready,
    )
