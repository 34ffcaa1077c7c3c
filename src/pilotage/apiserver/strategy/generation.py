"""metadata.generation: which kinds have one, and when it grows.

Source: the strategies of Kubernetes' registries; custom resources always have one.
"""

from __future__ import annotations

from typing import Any

from pilotage.api.catalogue import Resource, by_kind

_Object = dict[str, Any]

_KINDS = frozenset(
    {
        ("", "Pod"),
        ("", "ReplicationController"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("batch", "CronJob"),
        ("batch", "Job"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
        ("scheduling.k8s.io", "PriorityClass"),
    }
)
_APART = frozenset({"apiVersion", "kind", "metadata", "status"})


def counts(resource: Resource) -> bool:
    """Whether objects of this kind have a generation."""
    custom = by_kind(resource.group, resource.version, resource.kind) is None
    return custom or (resource.group, resource.kind) in _KINDS


def wishes_differ(old: _Object, new: _Object) -> bool:
    """Whether anything but metadata and status differs."""
    names = (old.keys() | new.keys()) - _APART
    return any(old.get(name) != new.get(name) for name in names)
