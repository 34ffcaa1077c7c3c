"""From an Endpoints object and its slices to the writes that make them say the same. Pure; fed by `reconciler.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilotage.api import services
from pilotage.api.core_v1 import EndpointAddress, Endpoints, EndpointSubset, Service
from pilotage.api.discovery_v1 import (
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
)
from pilotage.api.slices import Group, Plan, Shape, plan_slices

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"  # on objects that were only ever a lock
_NOT_COPIED = (services.TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")

ADDRESSES_MAX = 1000
"""Of one subset, as kube-controller-manager's default; ready ones come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Carry out `plan`; `skipped` addresses are left out, which the object should be told."""

    plan: Plan
    skipped: int
    invalid: int  # addresses that are none


def is_mirrored(endpoints: Endpoints | None, service: Service | None) -> bool:
    """Whether slices are to be made of the object; if not, those that were made go."""
    if endpoints is None or service is None or service.spec.selector or endpoints.metadata.is_deleting:
        return False
    if endpoints.metadata.labels.get(SKIP_LABEL) == "true":
        return False
    return LEADER_ANNOTATION not in endpoints.metadata.annotations


def mirror(endpoints: Endpoints, slices: Sequence[EndpointSlice]) -> Mirror:
    """`slices`: those made for this object so far."""
    wanted: dict[Group, dict[str, Endpoint]] = {}
    skipped = invalid = 0
    for subset in endpoints.subsets:
        left = ADDRESSES_MAX
        ports = tuple(
            sorted(services.Port(port.name, port.protocol, port.port, port.app_protocol) for port in subset.ports)
        )
        for address, ready in _addresses(subset):
            family = _family(address.ip)
            if not family:
                invalid += 1
            elif left <= 0:
                skipped += 1
            else:
                left -= 1
                wanted.setdefault((family, ports), {}).setdefault(address.ip, _endpoint(address, ready))
    shape = Shape(
        owner=endpoints,
        labels=_labels(endpoints),
        annotations={key: value for key, value in endpoints.metadata.annotations.items() if key not in _NOT_COPIED},
        trigger=endpoints.metadata.annotations.get(services.TRIGGER_TIME, ""),
    )
    return Mirror(plan=plan_slices(shape, wanted, slices, ()), skipped=skipped, invalid=invalid)


def _addresses(subset: EndpointSubset) -> list[tuple[EndpointAddress, bool]]:
    ready = [(address, True) for address in subset.addresses]
    return ready + [(address, False) for address in subset.not_ready_addresses]


def _family(ip: str) -> str:
    """ "IPv4", "IPv6", or empty for what is no address."""
    if ":" in ip:
        return "IPv6"
    parts = ip.split(".")
    return "IPv4" if len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts) else ""


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    # Nobody can tell from an Endpoints object whether a pod is on its way out.
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def _labels(endpoints: Endpoints) -> dict[str, str]:
    return dict(endpoints.metadata.labels) | {SERVICE_NAME_LABEL: endpoints.metadata.name, MANAGED_BY_LABEL: MANAGER}
