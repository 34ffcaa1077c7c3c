"""The volume claims of a numbered pod: their names, documents and owners.

Stands apart from `core` because claims outlive the pods they are made for. Pure; fed by `core` and `reconciler`.
Source: Kubernetes documentation "StatefulSets", "Stable Storage"; KEP-1847 (retention policy).
"""

from collections.abc import Mapping
from typing import Any

from pilotage.api.apps_v1 import StatefulSet
from pilotage.api.core_v1 import PersistentVolumeClaim, Pod
from pilotage.api.meta_v1 import Object


def claim_name(template: Mapping[str, Any], statefulset: StatefulSet, ordinal: int) -> str:
    return f"{template['metadata']['name']}-{statefulset.metadata.name}-{ordinal}"


def volumes(statefulset: StatefulSet, ordinal: int, stated: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pod's volumes: one for each claim template, in place of a stated one of the same name, then the others."""
    claims = {
        template["metadata"]["name"]: {"claimName": claim_name(template, statefulset, ordinal)}
        for template in statefulset.spec.volume_claim_templates
    }
    made = [{"name": name, "persistentVolumeClaim": source} for name, source in claims.items()]
    return made + [volume for volume in stated if volume.get("name") not in claims]


def new_claims(statefulset: StatefulSet, ordinal: int) -> list[dict[str, Any]]:
    """The documents of the pod's claims, in the order of the templates."""
    return [_document(template, statefulset, ordinal) for template in statefulset.spec.volume_claim_templates]


def owners(
    statefulset: StatefulSet, claim: PersistentVolumeClaim, pod: Pod | None, *, surplus: bool
) -> list[dict[str, Any]] | None:
    """The claim's owner references as the retention policy wants them; None if they are right.

    `pod`: the one it was made for, if there is one; `surplus`: whether scaling down removes that pod.
    References of strangers stay.
    """
    policy = statefulset.spec.persistent_volume_claim_retention_policy
    kinds = (StatefulSet.kind, Pod.kind)
    present = claim.metadata.owner_references
    ours = [item for item in present if item.kind in kinds and item.name in _names(statefulset, pod)]
    wanted: list[dict[str, Any]] = []
    if surplus and policy.when_scaled == "Delete":
        wanted = [_reference(pod)] if pod is not None else []
    elif policy.when_deleted == "Delete":
        wanted = [_reference(statefulset)]
    if [item.uid for item in ours] == [item["uid"] for item in wanted]:
        return None
    others = [item for item in present if item not in ours]
    return [
        *(
            {"apiVersion": item.api_version, "kind": item.kind, "name": item.name, "uid": item.uid}
            | ({"controller": True} if item.controller else {})
            | ({"blockOwnerDeletion": True} if item.block_owner_deletion else {})
            for item in others
        ),
        *wanted,
    ]


def _document(template: Mapping[str, Any], statefulset: StatefulSet, ordinal: int) -> dict[str, Any]:
    meta = template["metadata"]
    metadata: dict[str, Any] = {
        "name": claim_name(template, statefulset, ordinal),
        "namespace": statefulset.metadata.namespace,
        "labels": {**(meta.get("labels") or {}), **statefulset.spec.selector.match_labels},
        "annotations": dict(meta.get("annotations") or {}),
    }
    if statefulset.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete":
        metadata["ownerReferences"] = [_reference(statefulset)]
    return {
        "apiVersion": PersistentVolumeClaim.api_version,
        "kind": PersistentVolumeClaim.kind,
        "metadata": metadata,
        "spec": template.get("spec") or {},
    }


def _reference(owner: Object) -> dict[str, Any]:
    # No controller: a claim may be handed over, and outlives its owner under the other policy.
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
    }


def _names(statefulset: StatefulSet, pod: Pod | None) -> tuple[str, ...]:
    return (statefulset.metadata.name, *([pod.metadata.name] if pod is not None else []))
