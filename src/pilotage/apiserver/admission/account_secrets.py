"""Secrets of type `kubernetes.io/service-account-token` are filled with a token that has no end.

Differs from Kubernetes, where a controller fills them a moment later: the server has the key, so it does so at once.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#manually-create-a-long-lived-api-token-for-a-serviceaccount
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from pilotage.apiserver.admission.operation import Operation
from pilotage.apiserver.authentication import ServiceAccountTokens
from pilotage.apiserver.documents import Documents

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSecrets:
    """Who signs, and which authority clients should trust."""

    tokens: ServiceAccountTokens
    root_ca: bytes  # PEM

    def fill(self, operation: Operation, documents: Documents) -> None:
        """Complete a new Secret of an account that exists; one of an account that does not stays empty."""
        secret = operation.document
        if operation.verb != "create" or secret is None or operation.kind != ("", "Secret"):
            return
        if secret.get("type") != TYPE:
            return
        metadata = secret["metadata"]
        annotations = dict(metadata.get("annotations") or {})
        account = documents.get("", "serviceaccounts", operation.namespace, annotations.get(NAME, ""))
        if account is None or annotations.get(UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            return
        metadata["annotations"] = {**annotations, UID: account["metadata"]["uid"]}
        token = self.tokens.lasting(account, secret).encode()
        parts = {"token": token, "namespace": operation.namespace.encode(), "ca.crt": self.root_ca}
        secret["data"] = {
            **(secret.get("data") or {}),
            **{name: base64.b64encode(value).decode() for name, value in parts.items()},
        }
