"""Scheduling gates (KEP-3521): a pod with any gate left is not looked at."""

from pilotage.api.core_v1 import Pod

GATED_REASON = "SchedulingGated"
GATED_MESSAGE = "Scheduling is blocked due to non-empty scheduling gates"


def is_gated(pod: Pod) -> bool:
    return bool(pod.spec.scheduling_gates)
