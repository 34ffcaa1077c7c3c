"""Pods as the report about ndots needs them; for `pilotage dns ndots`."""

from __future__ import annotations

from pilotage.api.core_v1 import Pod
from pilotage.dns.core.ndots import PodFacts


def facts_of(pod: Pod) -> PodFacts:
    """What matters of one pod. A ReplicaSet's name without its hash stands for the Deployment above it."""
    meta, owner = pod.metadata, pod.metadata.controller
    kind, name = (owner.kind, owner.name) if owner is not None else ("Pod", meta.name)
    suffix = meta.labels.get("pod-template-hash", "")
    if kind == "ReplicaSet" and suffix and name.endswith(f"-{suffix}"):
        kind, name = "Deployment", name.removesuffix(f"-{suffix}")
    options = {option.name: option.value for option in pod.spec.dns_config.options}
    return PodFacts(
        namespace=meta.namespace,
        owner=f"{kind}/{name}",
        dns_policy=pod.spec.dns_policy,
        ndots=options.get("ndots", "") or "",
    )
