"""A verified client certificate → a user: the common name is its name, the organizations are its groups.

The chain was verified by TLS before the first byte of the request; what remains is reading the subject and, because
connections outlive certificates, the expiry. Called for every request, so a certificate is parsed once.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from pilotage.api.status import ApiError
from pilotage.apiserver.authentication.user import AUTHENTICATED, UserInfo

# More distinct clients than any one machine holds; beyond it the cache starts over.
CACHED_MAX = 4096


class Certificates:
    """Users by certificate."""

    def __init__(self) -> None:
        self._users: dict[bytes, tuple[UserInfo, datetime]] = {}

    def user(self, der: bytes, now: datetime) -> UserInfo:
        """The user a certificate names. Raises ApiError Unauthorized when it has expired or names nobody."""
        known = self._users.get(der)  # Python keeps the hash of a bytes object, so this reads no certificate twice.
        if known is None:
            known = _read(der)
            if len(self._users) >= CACHED_MAX:
                self._users.clear()
            self._users[der] = known
        user, expires = known
        if now > expires or not user.name:
            raise ApiError("Unauthorized", "Unauthorized")
        return user


def _read(der: bytes) -> tuple[UserInfo, datetime]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        expires = certificate.not_valid_after_utc
    except ValueError:
        raise ApiError("Unauthorized", "Unauthorized") from None
    groups = dict.fromkeys([*(str(item.value) for item in organizations), AUTHENTICATED])
    return UserInfo(name=str(names[0].value) if names else "", groups=tuple(groups)), expires
