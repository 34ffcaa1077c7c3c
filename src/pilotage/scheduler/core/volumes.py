"""Volume claims: what a pod asks for, and when no node at all can take it because of them.

Stands apart because several filters ask for the same claims, and because a claim that is absent or not bound yet is one
answer for all nodes. Leaves out binding itself: nothing provisions any volume here.
"""

from collections.abc import Iterator

from pilotage.scheduler.core.model import ClaimInfo, Cluster, PodInfo

UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


def claim_names(pod: PodInfo) -> Iterator[str]:
    """The claims of its namespace that the pod uses."""
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name


def claims(pod: PodInfo, cluster: Cluster) -> Iterator[tuple[str, ClaimInfo]]:
    """Name and claim, of those that are known."""
    for name in claim_names(pod):
        claim = cluster.claims.get((pod.key.namespace, name))
        if claim is not None:
            yield name, claim


def refusal(pod: PodInfo, cluster: Cluster) -> str:
    """Why no node can take the pod, in Kubernetes' words; empty if its volumes do not stand in the way."""
    for name in claim_names(pod):
        if (pod.key.namespace, name) not in cluster.claims:
            return f'persistentvolumeclaim "{name}" not found'
    return UNBOUND if any(not claim.volume for _, claim in claims(pod, cluster)) else ""
