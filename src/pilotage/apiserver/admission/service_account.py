"""Every pod runs as a ServiceAccount that exists, and finds its token where clients look for it.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import secrets
from typing import Any

from pilotage.apiserver.admission.operation import Document, Operation
from pilotage.apiserver.documents import Documents

MIRROR = "kubernetes.io/config.mirror"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
ROOT_CA = "kube-root-ca.crt"
# Seven seconds over an hour tell these tokens from those somebody asked for by hand.
TOKEN_LIFETIME_S = 3607
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def service_account(operation: Operation, documents: Documents) -> None:
    """Complete a new pod; raises ApiError Forbidden when its account does not exist."""
    if operation.verb != "create" or operation.kind != ("", "Pod") or operation.subresource:
        return
    pod = operation.document
    assert pod is not None
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    spec = pod["spec"]
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = documents.get("", "serviceaccounts", operation.namespace, name)
    if account is None:
        where = f"{operation.namespace}/{name}"
        raise operation.forbidden(f'error looking up service account {where}: serviceaccount "{name}" not found')
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(item) for item in account["imagePullSecrets"]]
    if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
        _mount_token(spec)


def _mount_token(spec: Document) -> None:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    missing = [
        container
        for container in containers
        if all(mount.get("mountPath") != TOKEN_PATH for mount in container.get("volumeMounts") or ())
    ]
    if not missing:
        return
    volume = next(
        (item["name"] for item in spec.get("volumes") or () if item["name"].startswith("kube-api-access-")), ""
    )
    if not volume:
        volume = f"kube-api-access-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"
        spec["volumes"] = [*(spec.get("volumes") or ()), {"name": volume, "projected": _projection()}]
    for container in missing:
        mount = {"name": volume, "readOnly": True, "mountPath": TOKEN_PATH}
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _projection() -> dict[str, Any]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFETIME_S, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
    }
