"""Filters, one a file, in the order in which they are asked; the cheapest and most telling first.

Scheduling gates are not among them: a gated pod never enters the queue (`gates.py`). Deliberately absent:
NodeVolumeLimits, because there are no CSI drivers whose limits nodes could report.
"""

from pilotage.scheduler.core.filters import (
    inter_pod_affinity,
    node_affinity,
    node_name,
    node_ports,
    node_resources_fit,
    node_unschedulable,
    pod_topology_spread,
    taint_toleration,
    volume_binding,
    volume_restrictions,
    volume_zone,
)
from pilotage.scheduler.core.plugin import Filter

FILTERS: tuple[Filter, ...] = (
    node_unschedulable.FILTER,
    node_name.FILTER,
    taint_toleration.FILTER,
    node_affinity.FILTER,
    node_ports.FILTER,
    node_resources_fit.FILTER,
    volume_restrictions.FILTER,
    volume_binding.FILTER,
    volume_zone.FILTER,
    pod_topology_spread.FILTER,
    inter_pod_affinity.FILTER,
)

__all__ = ["FILTERS"]
