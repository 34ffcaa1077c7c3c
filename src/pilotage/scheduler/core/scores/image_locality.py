"""Prefer nodes that have the pod's images already, the large ones first.

An image counts by its size times the share of nodes that have it, so that one rare image does not draw every pod that
uses it to one node. The bounds are kube-scheduler's.
"""

from collections.abc import Sequence

from pilotage.scheduler.core.model import Cluster, NodeInfo, PodInfo
from pilotage.scheduler.core.plugin import SCORE_MAX, Score

SIZE_MIN = 23 * 1024 * 1024  # less is not worth looking
SIZE_MAX = 1000 * 1024 * 1024  # of each container; more does not count more


def rate(pod: PodInfo, cluster: Cluster, nodes: Sequence[NodeInfo]) -> Sequence[float] | None:
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    wanted = [_normalized(container.image) for container in containers if container.image]
    if not any(name in cluster.image_holders for name in wanted):
        return None
    return [_score(node, wanted, len(containers), cluster) for node in nodes]


def _score(node: NodeInfo, wanted: Sequence[str], containers: int, cluster: Cluster) -> float:
    sizes = {name: image.size_bytes for image in node.node.status.images for name in image.names}
    held = sum(sizes[name] * cluster.image_holders[name] / len(cluster.nodes) for name in wanted if name in sizes)
    most = SIZE_MAX * containers
    bounded = min(max(held, SIZE_MIN), most)
    return SCORE_MAX * (bounded - SIZE_MIN) / (most - SIZE_MIN)


def _normalized(name: str) -> str:
    """As nodes report it: with a tag."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


SCORE = Score(name="ImageLocality", rate=rate, weight=1)
