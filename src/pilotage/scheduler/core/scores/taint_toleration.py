"""Prefer nodes with fewer PreferNoSchedule taints that the pod does not tolerate."""

from collections.abc import Sequence

from pilotage.api.placement import tolerates
from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import Score, scale


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    soft = [
        float(
            sum(
                1
                for taint in node.taints
                if taint.effect == "PreferNoSchedule" and not tolerates(pod.spec.tolerations, taint)
            )
        )
        for node in nodes
    ]
    return scale(soft, reverse=True) if any(soft) else None


SCORE = Score(name="TaintToleration", rate=rate, weight=3)
