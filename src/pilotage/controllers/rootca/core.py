"""The ConfigMap that every namespace must hold. Pure; fed by `reconciler.py`."""

from typing import Any

from pilotage.api.core_v1 import ConfigMap, Namespace

NAME = "kube-root-ca.crt"
KEY = "ca.crt"
NOTE = "kubernetes.io/description"
_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def is_due(namespace: Namespace | None, existing: ConfigMap | None, certificate: str) -> bool:
    """Whether the ConfigMap must be written; never in a namespace that is gone or going."""
    if namespace is None or namespace.metadata.is_deleting or namespace.status.phase == "Terminating":
        return False
    return existing is None or existing.data != {KEY: certificate}


def document(namespace: str, certificate: str) -> dict[str, Any]:
    """The whole ConfigMap."""
    return {
        "apiVersion": ConfigMap.api_version,
        "kind": ConfigMap.kind,
        "metadata": {"name": NAME, "namespace": namespace, "annotations": {NOTE: _TEXT}},
        "data": {KEY: certificate},
    }


def correction(existing: ConfigMap, certificate: str) -> dict[str, Any]:
    """The merge patch that leaves nothing but the certificate."""
    return {"data": {**dict.fromkeys(existing.data), KEY: certificate}}
