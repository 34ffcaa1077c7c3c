"""Chooses a node for every pod that has none.

Purpose: filter, score, bind; when nothing fits, push aside pods of lower priority or wait for the event that may help.
Inputs → outputs: Pods, Nodes, Namespaces, Services, workloads, PodDisruptionBudgets → bindings, PodScheduled and
DisruptionTarget conditions, nominations, deletions of victims, events.
Invariants: a decision counts everything decided before it; a pod is bound by uid, so never its namesake; a pod that
does not fit costs nothing until an event that one of its rejecting filters named.
Reading order: `core/model`, `core/queue`, `core/cycle`, any of `core/filters` and `core/scores`, `core/preemption`,
`scheduler`.
Specifications: Kubernetes documentation "Scheduling Framework", "Assigning Pods to Nodes", "Pod Priority and
Preemption"; KEP-895, KEP-3521, KEP-753, KEP-3329.
Deliberately absent for now: binding of volumes (a pod waits until its claims are bound), devices, extenders.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pilotage.client import Client
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.scheduler.scheduler import Scheduler

__all__ = ["Config", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Which pods this scheduler serves."""

    scheduler_name: str = "default-scheduler"
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False)


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Schedule until cancelled; `on_ready` is called once all caches are filled."""
    await Scheduler(client, config.scheduler_name, config.clock).run(on_ready)
