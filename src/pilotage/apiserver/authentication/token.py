"""Tokens of ServiceAccounts: signed, bound to an audience, a lifetime and an object, and dead when that object is.

Issued through the TokenRequest subresource, verified for every request. A signature is verified once per token; whether
the ServiceAccount, Pod or Secret still exists is asked every time, which costs a dictionary access.

Tokens kept in Secrets are made only for whoever asks for one by creating such a Secret; they have no end.

Specification: KEP-1205, KEP-4193; RFC 7519; TokenRequest in the Kubernetes 1.36 API reference.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilotage.api import timestamp
from pilotage.api.schema_problems import Problems
from pilotage.api.status import ApiError, invalid, not_found
from pilotage.apiserver.authentication.user import (
    AUTHENTICATED,
    UserInfo,
    service_account_groups,
    service_account_name,
)
from pilotage.apiserver.documents import Document, Documents

ISSUER = "https://kubernetes.default.svc.cluster.local"
CONFIGURATION_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"
# Of tokens kept in Secrets, as Kubernetes has always named it.
LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
LIFETIME_DEFAULT_S = 3600
LIFETIME_MIN_S = 600
LIFETIME_MAX_S = 2**32
VERIFIED_MAX = 4096  # Tokens whose signature we remember; beyond it the cache starts over.
# A client may still be draining work while its pod goes: its token works on for this long.
DELETION_LEEWAY = timedelta(seconds=60)

_PRIVATE = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io/"
_BOUND_KINDS = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """An object a token is bound to."""

    plural: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """What a token with a good signature says."""

    user: UserInfo
    audiences: frozenset[str]
    not_before: float
    expires: float
    bound: tuple[_Bound, ...]  # The ServiceAccount first.


class ServiceAccountTokens:
    """Issues and verifies; one per server. `key` is P-256."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        documents: Documents,
        *,
        issuer: str = ISSUER,
        audiences: Sequence[str] = (),  # Empty: the issuer
    ) -> None:
        self._key, self._public = key, key.public_key()
        self.key_id = _key_id(self._public)
        self._documents = documents
        self.issuer = issuer
        self.audiences = tuple(audiences) or (issuer,)
        self._verified: dict[str, _Verified] = {}

    # Issuing

    def request(self, account: Document, body: Mapping[str, Any], now: datetime) -> Document:
        """Answer a TokenRequest for an existing ServiceAccount. Raises ApiError Invalid, NotFound or Conflict."""
        spec = body.get("spec") or {}
        lifetime = spec.get("expirationSeconds") or LIFETIME_DEFAULT_S
        problems = Problems()
        if lifetime < LIFETIME_MIN_S:
            problems.invalid("spec.expirationSeconds", lifetime, "may not specify a duration less than 10 minutes")
        elif lifetime > LIFETIME_MAX_S:
            problems.invalid("spec.expirationSeconds", lifetime, "may not specify a duration larger than 2^32 seconds")
        reference = spec.get("boundObjectRef")
        if reference is not None and reference.get("kind") not in _BOUND_KINDS:
            problems.unsupported("spec.boundObjectRef.kind", reference.get("kind", ""), _BOUND_KINDS)
        if problems.errors:
            raise invalid("TokenRequest", "", problems.errors, "authentication.k8s.io")
        audiences = list(spec.get("audiences") or self.audiences)
        expires = now + timedelta(seconds=lifetime)
        claims = {
            "aud": audiences,
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            _PRIVATE: self._private_claims(account, reference),
            "nbf": int(now.timestamp()),
            "sub": service_account_name(account["metadata"]["namespace"], account["metadata"]["name"]),
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.key_id})
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {
                "name": account["metadata"]["name"],
                "namespace": account["metadata"]["namespace"],
                "creationTimestamp": timestamp.render(now),
            },
            "spec": {**spec, "audiences": audiences, "expirationSeconds": lifetime},
            "status": {"token": token, "expirationTimestamp": timestamp.render(expires)},
        }

    def lasting(self, account: Document, secret: Document) -> str:
        """The token kept in a Secret of type `kubernetes.io/service-account-token`: no end, but it dies with either."""
        metadata = account["metadata"]
        claims = {
            "iss": LEGACY_ISSUER,
            "sub": service_account_name(metadata["namespace"], metadata["name"]),
            f"{_LEGACY}namespace": metadata["namespace"],
            f"{_LEGACY}secret.name": secret["metadata"]["name"],
            f"{_LEGACY}secret.uid": secret["metadata"]["uid"],
            f"{_LEGACY}service-account.name": metadata["name"],
            f"{_LEGACY}service-account.uid": metadata["uid"],
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.key_id})

    def _private_claims(self, account: Document, reference: Mapping[str, Any] | None) -> Document:
        metadata = account["metadata"]
        claims: Document = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if reference is None:
            return claims
        kind, name = reference["kind"], reference.get("name", "")
        plural = _BOUND_KINDS[kind]
        found = self._documents.get("", plural, "" if kind == "Node" else metadata["namespace"], name)
        if found is None:
            raise not_found(plural, name)
        uid = found["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise ApiError(
                "Conflict",
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})",
            )
        claims[kind.lower()] = {"name": name, "uid": uid}
        if kind == "Pod":
            mounted = found["spec"].get("serviceAccountName", "default")
            if mounted != metadata["name"]:
                raise ApiError(
                    "BadRequest", f"pod {name} runs as service account {mounted}, not as {metadata['name']}"
                )  # fmt: skip
            node = self._documents.get("", "nodes", "", found["spec"].get("nodeName", ""))
            if node is not None:
                claims["node"] = {"name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
        return claims

    def published(self, address: str) -> dict[str, tuple[str, bytes]]:
        """Path → media type and document: how others verify these tokens without asking us.

        OpenID Connect Discovery 1.0 §4.2, RFC 7517; https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
        """
        configuration = {
            "issuer": self.issuer,
            "jwks_uri": f"https://{address}{JWKS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        keys = {"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "alg": "ES256", **_coordinates(self._public)}]}
        return {
            CONFIGURATION_PATH: ("application/json", json.dumps(configuration).encode()),
            JWKS_PATH: ("application/jwk-set+json", json.dumps(keys).encode()),
        }

    # Verifying

    def user(self, token: str, now: datetime, audiences: Sequence[str] = ()) -> UserInfo | None:
        """The user of a good token for one of the audiences (the server's own by default), else None."""
        verified = self._verified.get(token)
        if verified is None:
            verified = self._verify(token)
            if verified is None:
                return None
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = verified
        moment = now.timestamp()
        if not verified.not_before - 60 <= moment < verified.expires:
            return None
        if verified.audiences.isdisjoint(audiences or self.audiences):
            return None
        if not all(self._alive(bound, now) for bound in verified.bound):
            return None
        return verified.user

    def accepted_audiences(self, token: str, audiences: Sequence[str]) -> tuple[str, ...]:
        """Which of these audiences a token that `user` accepted is meant for."""
        verified = self._verified.get(token)
        return tuple(item for item in audiences if verified is not None and item in verified.audiences)

    def _alive(self, bound: _Bound, now: datetime) -> bool:
        found = self._documents.get("", bound.plural, bound.namespace, bound.name)
        if found is None or found["metadata"].get("uid") != bound.uid:
            return False
        deleted = found["metadata"].get("deletionTimestamp")
        return deleted is None or now < timestamp.parse(deleted) + DELETION_LEEWAY

    def _verify(self, token: str) -> _Verified | None:
        try:
            # Time and audience depend on the request and are judged there; here only what never changes.
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=[self.issuer, LEGACY_ISSUER],
                options={
                    "require": ["iss", "sub"],
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return _read_lasting(claims, self.audiences) if claims["iss"] == LEGACY_ISSUER else _read(claims)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError):
            return None


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    """As kube-apiserver: the hash of the key in DER."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _base64url(hashlib.sha256(der).digest())


def _coordinates(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    size = (key.key_size + 7) // 8
    return {
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(size, "big")),
        "y": _base64url(numbers.y.to_bytes(size, "big")),
    }


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read_lasting(claims: Mapping[str, Any], audiences: Sequence[str]) -> _Verified | None:
    """A token from a Secret: for this server only, as long as account and Secret are the same."""
    namespace, account = claims[f"{_LEGACY}namespace"], claims[f"{_LEGACY}service-account.name"]
    uid = claims[f"{_LEGACY}service-account.uid"]
    name = service_account_name(namespace, account)
    if claims["sub"] != name:
        return None
    secret, secret_uid = claims[f"{_LEGACY}secret.name"], claims[f"{_LEGACY}secret.uid"]
    return _Verified(
        user=UserInfo(name=name, uid=uid, groups=(*service_account_groups(namespace), AUTHENTICATED)),
        audiences=frozenset(audiences),
        not_before=0,
        expires=float("inf"),
        bound=(
            _Bound(plural="serviceaccounts", namespace=namespace, name=account, uid=uid),
            _Bound(plural="secrets", namespace=namespace, name=secret, uid=secret_uid),
        ),
    )


def _read(claims: Mapping[str, Any]) -> _Verified | None:
    private = claims[_PRIVATE]
    namespace, account = private["namespace"], private["serviceaccount"]
    name = service_account_name(namespace, account["name"])
    if claims["sub"] != name:
        return None
    bound = [_Bound(plural="serviceaccounts", namespace=namespace, name=account["name"], uid=account["uid"])]
    extra: dict[str, tuple[str, ...]] = {}
    if "jti" in claims:
        extra[f"{_EXTRA}credential-id"] = (f"JTI={claims['jti']}",)
    for kind in ("pod", "secret", "node"):
        held = private.get(kind)
        if held is None:
            continue
        where = "" if kind == "node" else namespace
        if kind != "node" or "pod" not in private:  # A pod's node is told, the pod is what the token lives by.
            bound.append(_Bound(plural=f"{kind}s", namespace=where, name=held["name"], uid=held["uid"]))
        if kind != "secret":
            extra[f"{_EXTRA}{kind}-name"] = (held["name"],)
            extra[f"{_EXTRA}{kind}-uid"] = (held["uid"],)
    audiences = claims["aud"]
    return _Verified(
        user=UserInfo(
            name=name,
            uid=account["uid"],
            groups=(*service_account_groups(namespace), AUTHENTICATED),
            extra=MappingProxyType(extra),
        ),
        audiences=frozenset([audiences] if isinstance(audiences, str) else audiences),
        not_before=float(claims.get("nbf", 0)),
        expires=float(claims["exp"]),
        bound=tuple(bound),
    )
