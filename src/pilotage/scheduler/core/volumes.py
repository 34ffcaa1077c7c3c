"""Volume claims: a pod whose claims are absent or not bound yet waits, whatever the nodes are like.

Stands apart from the filters because it asks the pod, not a node: one answer for all of them, and no preemption helps.
Leaves out binding itself, and volumes that only some nodes reach: nothing provisions any here.
"""

from pilotage.scheduler.core.model import Cluster, PodInfo

UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


def refusal(pod: PodInfo, cluster: Cluster) -> str:
    """Why no node can take the pod, in Kubernetes' words; empty if its volumes do not stand in the way."""
    unbound = False
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is None:
            continue
        name = volume.persistent_volume_claim.claim_name
        bound = cluster.claims.get((pod.key.namespace, name))
        if bound is None:
            return f'persistentvolumeclaim "{name}" not found'
        unbound = unbound or not bound
    return UNBOUND if unbound else ""
