"""A user as every later stage sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
NODES = "system:nodes"
SERVICE_ACCOUNTS = "system:serviceaccounts"

_ACCOUNT_PREFIX = "system:serviceaccount:"
_NODE_PREFIX = "system:node:"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInfo:
    """Name and groups of whoever asks; `extra` carries what the credential says besides."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def node(self) -> str:
        """The node this user is, or ""."""
        if self.name.startswith(_NODE_PREFIX) and NODES in self.groups:
            return self.name[len(_NODE_PREFIX) :]
        return ""

    def to_wire(self) -> dict[str, object]:
        """As in TokenReview and SelfSubjectReview."""
        wire: dict[str, object] = {"username": self.name}
        if self.uid:
            wire["uid"] = self.uid
        if self.groups:
            wire["groups"] = list(self.groups)
        if self.extra:
            wire["extra"] = {key: list(values) for key, values in self.extra.items()}
        return wire


ANONYMOUS = UserInfo(name="system:anonymous", groups=(UNAUTHENTICATED,))

# The server writing on its own account, such as the objects every cluster starts with.
LOOPBACK = UserInfo(name="system:apiserver", groups=(MASTERS, AUTHENTICATED))


def service_account_name(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{_ACCOUNT_PREFIX}{namespace}:{name}"


def split_service_account(name: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount a user name means, or None."""
    if not name.startswith(_ACCOUNT_PREFIX):
        return None
    namespace, colon, account = name[len(_ACCOUNT_PREFIX) :].partition(":")
    return (namespace, account) if colon and namespace and account and ":" not in account else None


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """The groups every ServiceAccount of a namespace is in."""
    return (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}")
