"""Says whether the kernel does what the API asks: the proxy's plan, made afresh, against the rules that are there.

Apart from the proxier because it is another process: it changes nothing, needs no proxy to run, and believes a
difference only when two readings of both sides agree on it, since a proxy may be at work meanwhile. Called by
`pilotage proxy check`.
"""

import asyncio
from dataclasses import dataclass

from pilotage.api.core_v1 import Node, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.status import ApiError, is_not_found
from pilotage.client import Client
from pilotage.proxy.backends import Backend
from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.model import Problem
from pilotage.proxy.core.plan import Plan
from pilotage.proxy.core.topology import ZONE_LABEL, NodeView
from pilotage.proxy.core.whole import plan_everything

_LOOKS_MAX = 4
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `check` found."""

    resource_version: int  # of the API's state that the kernel was compared with
    services: int
    differences: tuple[Drift, ...]  # empty: the kernel is as planned
    problems: tuple[Problem, ...]  # what Services ask and the plan does not contain


async def check(node: str, client: Client, backend: Backend) -> Verdict:
    """Compare the rules in `backend`'s network with what `node` should have. ApiError and BackendError pass through."""
    before: frozenset[tuple[str, str, str, str]] | None = None
    for look in range(_LOOKS_MAX):
        if look:
            await asyncio.sleep(_PAUSE_S)
        problems: list[Problem] = []
        version, services, plan = await _intent(node, client, problems)
        drift = await asyncio.to_thread(backend.check, plan)
        now = frozenset((one.family, one.set, one.kind, one.element) for one in drift)
        # Standing differences are the same twice; what a proxy is just applying is not.
        standing = now if before is None else now & before
        if not now or (before is not None and standing):
            drift = tuple(one for one in drift if (one.family, one.set, one.kind, one.element) in standing)
            break
        before = now
    return Verdict(resource_version=version, services=services, differences=drift, problems=tuple(problems))


async def _intent(node: str, client: Client, problems: list[Problem]) -> tuple[int, int, Plan]:
    services = await client.list(Service)
    slices = await client.list(EndpointSlice)
    view = NodeView(name=node, zone=await _zone(node, client))
    version = min(int(services.resource_version or 0), int(slices.resource_version or 0))
    return version, len(services.items), plan_everything(services.items, slices.items, view, problems)


async def _zone(node: str, client: Client) -> str:
    try:
        return (await client.get(Node, node)).metadata.labels.get(ZONE_LABEL, "")
    except ApiError as error:
        if not is_not_found(error):
            raise
        return ""
