"""Scheduling gates (KEP-3521): a pod with any gate left is not looked at; the API server has written its condition."""

from pilotage.api.core_v1 import Pod


def is_gated(pod: Pod) -> bool:
    return bool(pod.spec.scheduling_gates)
