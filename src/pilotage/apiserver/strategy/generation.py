"""metadata.generation: which kinds have one, and when it grows.

Source: the strategies of Kubernetes' registries; custom resources always have one.
"""

from __future__ import annotations

from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.apiserver.core.custom_resource import CustomResource

_Object = dict[str, Any]

_KINDS = frozenset(
    {
        ("", "Pod"),
        ("", "ReplicationController"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
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
    return isinstance(resource, CustomResource) or (resource.group, resource.kind) in _KINDS


def wishes_differ(resource: Resource, old: _Object, new: _Object) -> bool:
    """Whether anything but metadata and status differs; a status that is no subresource is a field like any other."""
    names = (old.keys() | new.keys()) - _APART
    if isinstance(resource, CustomResource) and resource.subresource("status") is None:
        names |= (old.keys() | new.keys()) & {"status"}
    return any(old.get(name) != new.get(name) for name in names)
