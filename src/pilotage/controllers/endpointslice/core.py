"""From a Service, its pods and its present slices to the fewest writes that make the slices right.

Fed by `reconciler.py`; pure and deterministic. How endpoints are packed says `pilotage.api.slices`; which pods wait,
`damping`; for whom endpoints are meant when processors are to be shared out, `topology`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from pilotage.api import services
from pilotage.api.core_v1 import ObjectReference, Pod, Service
from pilotage.api.discovery_v1 import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    ForNode,
    ForZone,
)
from pilotage.api.slices import Group, Plan, Shape, group_of, plan_slices
from pilotage.controllers.endpointslice.topology import NO_ZONE, Zones, is_auto, share_out

MANAGER = "endpointslice-controller.k8s.io"
_RESERVED = (SERVICE_NAME_LABEL, MANAGED_BY_LABEL, services.HEADLESS_LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Carry out `plan`, unless it may wait for more of its kind."""

    plan: Plan
    only_adds: bool  # nothing that gets traffic now would change: to wait sends nobody to a dead address
    without_hints: Mapping[str, str] = field(default_factory=dict)  # family → why it has none of the hints asked for


def decide(
    service: Service,
    pods: Iterable[Pod],
    zones: Zones,
    slices: Sequence[EndpointSlice],
    trigger: str,
    held_back: Mapping[str, str] | None = None,
) -> Decision:
    """`slices`: ours of this Service. `trigger`: RFC 3339 time of the change that led here.

    `held_back`: keys of pods that are ready and wait, with the reason.
    """
    held = held_back or {}
    wanted = _wanted(service, pods, zones.by_node, held)
    without_hints = _share_out(service, wanted, slices, zones)
    waiting = _waiting(wanted, held) if held else {}
    shape = Shape(owner=service, labels=_labels(service), annotations=None, trigger=trigger, held_back=waiting)
    plan = plan_slices(shape, wanted, slices, services.families(service))
    return Decision(
        plan=plan,
        only_adds=bool(plan) and _only_adds(wanted, slices),
        without_hints=without_hints,
    )


def endpoint_of(
    service: Service, pod: Pod, family: str, zones: Mapping[str, str], *, waits: bool = False
) -> Endpoint:  # fmt: skip
    """The endpoint that stands for a pod. `serving` ignores termination, `ready` does not (KEP-1672).

    `waits`: the pod is ready but has flapped; consumers that use terminating endpoints in need do not use this one.
    """
    terminating = pod.metadata.is_deleting
    serving = pod.status.is_ready
    ready = services.publishes_not_ready(service) or (serving and not terminating and not waits)
    zone = zones.get(pod.spec.node_name, "")
    return Endpoint(
        addresses=services.addresses(pod, family)[:1],
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=services.hostname(service, pod),
        node_name=pod.spec.node_name,
        zone=zone,
        target_ref=ObjectReference(
            kind=Pod.kind, namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid
        ),
        hints=hints(_distribution(service), zone, pod.spec.node_name) if ready else EndpointHints(),
    )


def _distribution(service: Service) -> str:
    return "" if is_auto(service) else service.spec.traffic_distribution


def hints(distribution: str, zone: str, node_name: str) -> EndpointHints:
    """For whom an endpoint is meant: its own zone, and first its own node (KEP-4444, KEP-3015).

    Each endpoint is for where it is, whatever the spread: a zone without endpoints has none that names it, and then
    consumers take them all.
    """
    if distribution not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return EndpointHints()
    nodes = (ForNode(name=node_name),) if distribution == "PreferSameNode" and node_name else ()
    return EndpointHints(for_zones=(ForZone(name=zone),) if zone else (), for_nodes=nodes)


def _share_out(
    service: Service, wanted: Mapping[Group, dict[str, Endpoint]], slices: Iterable[EndpointSlice], zones: Zones
) -> dict[str, str]:
    """Put hints into `wanted` as topology-mode asks; family → why there are none."""
    if not is_auto(service) and not service.spec.traffic_distribution:
        return {}
    ready: dict[str, dict[str, Endpoint]] = {family: {} for family in services.families(service)}
    for (family, _), endpoints in wanted.items():
        ready.setdefault(family, {}).update({key: item for key, item in endpoints.items() if item.is_ready})
    if not is_auto(service):
        asked = bool(hints(service.spec.traffic_distribution, "zone", "node").for_zones)
        # One endpoint that is nowhere makes every consumer ignore the hints of all.
        lacking = [family for family, found in ready.items() if asked and not all(item.zone for item in found.values())]
        return dict.fromkeys(lacking, NO_ZONE)
    before = {
        endpoint.addresses[0]: endpoint.hints.for_zones[0].name
        for item in slices
        for endpoint in item.endpoints
        if endpoint.addresses and endpoint.hints.for_zones
    }
    failures: dict[str, str] = {}
    shares: dict[str, Mapping[str, str]] = {}
    for family, found in ready.items():
        outcome = share_out({address: item.zone for address, item in found.items()}, before, zones)
        if isinstance(outcome, str):
            failures[family] = outcome
        else:
            shares[family] = outcome
    for (family, _), endpoints in wanted.items():
        for address, endpoint in endpoints.items():
            zone = shares.get(family, {}).get(address, "")
            meant = EndpointHints(for_zones=(ForZone(name=zone),) if zone else ())
            endpoints[address] = msgspec.structs.replace(endpoint, hints=meant)
    return failures


def _waiting(wanted: Mapping[Group, Mapping[str, Endpoint]], held: Mapping[str, str]) -> dict[str, str]:
    """Address → why it waits."""
    found: dict[str, str] = {}
    for endpoints in wanted.values():
        for address, endpoint in endpoints.items():
            target = endpoint.target_ref
            if target is not None and not endpoint.is_ready and (key := f"{target.namespace}/{target.name}") in held:
                found[address] = held[key]
    return found


def _only_adds(wanted: Mapping[Group, Mapping[str, Endpoint]], slices: Iterable[EndpointSlice]) -> bool:
    """Whether every endpoint that is published as usable stays as it is."""
    for item in slices:
        found = wanted.get(group_of(item), {})
        for endpoint in item.endpoints:
            usable = endpoint.is_ready or (endpoint.is_serving and endpoint.is_terminating)
            if usable and (not endpoint.addresses or found.get(endpoint.addresses[0]) != endpoint):
                return False
    return True


def _wanted(
    service: Service, pods: Iterable[Pod], zones: Mapping[str, str], held_back: Mapping[str, str]
) -> dict[Group, dict[str, Endpoint]]:
    """Group → address → endpoint."""
    wanted: dict[Group, dict[str, Endpoint]] = {}
    for pod in sorted(pods, key=lambda item: item.metadata.name):
        if not services.is_addressable(pod):
            continue
        ports = services.ports(service, pod)
        if not ports and service.spec.ports:
            continue  # it knows none of the named ports: there is nothing to send traffic to
        for family in services.families(service):
            endpoint = endpoint_of(service, pod, family, zones, waits=pod.metadata.key in held_back)
            if endpoint.addresses:
                wanted.setdefault((family, tuple(sorted(ports))), {})[endpoint.addresses[0]] = endpoint
    return wanted


def _labels(service: Service) -> dict[str, str]:
    labels = services.copied_labels(service, _RESERVED)
    labels |= {SERVICE_NAME_LABEL: service.metadata.name, MANAGED_BY_LABEL: MANAGER}
    if services.is_headless(service):
        labels[services.HEADLESS_LABEL] = ""
    return labels
