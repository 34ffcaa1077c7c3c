"""The chain: a client certificate, else a bearer token, else anonymous.

Called once per request by the server's gate, which reads the certificate and the header off the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pilotage.api.status import ApiError
from pilotage.apiserver.authentication.certificate import Certificates
from pilotage.apiserver.authentication.token import ServiceAccountTokens
from pilotage.apiserver.authentication.user import ANONYMOUS, UserInfo


class Authenticator:
    """Credentials → UserInfo. `tokens` is None where no ServiceAccount can ask."""

    def __init__(self, tokens: ServiceAccountTokens | None, *, anonymous: bool = True) -> None:
        self._certificates = Certificates()
        self._tokens = tokens
        self._anonymous = anonymous

    def authenticate(
        self, peer_certificate_der: bytes | None, authorization_header: str | None, now: datetime
    ) -> UserInfo:
        """Who asks. Raises ApiError Unauthorized for credentials that are not good."""
        if peer_certificate_der is not None:
            return self._certificates.user(peer_certificate_der, now)
        if authorization_header:
            scheme, _, token = authorization_header.partition(" ")
            if scheme.lower() == "bearer":  # RFC 9110 section 11.1: schemes are case-insensitive
                user = None if self._tokens is None else self._tokens.user(token.strip(), now)
                if user is not None:
                    return user
                raise ApiError("Unauthorized", "Unauthorized")
        if not self._anonymous:
            raise ApiError("Unauthorized", "Unauthorized")
        return ANONYMOUS

    def review(self, body: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        """Answer a TokenReview; the token itself is left out of the answer's status."""
        spec = body.get("spec") or {}
        token, wanted = spec.get("token") or "", tuple(spec.get("audiences") or ())
        user = self._tokens.user(token, now, wanted) if token and self._tokens is not None else None
        status: dict[str, Any] = {}
        if user is not None and self._tokens is not None:
            accepted = self._tokens.accepted_audiences(token, wanted or self._tokens.audiences)
            status = {"authenticated": True, "user": user.to_wire(), "audiences": list(accepted)}
        elif token:
            status = {"authenticated": False, "error": "invalid bearer token"}
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": dict(spec),
            "status": status,
        }
