"""Acting as somebody else, for those whom RBAC allows it.

Called by the gate after authentication, when a request carries Impersonate-* headers.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MappingProxyType
from urllib.parse import unquote

from pilotage.api.status import ApiError
from pilotage.apiserver.authentication.user import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    UserInfo,
    service_account_groups,
    split_service_account,
)
from pilotage.apiserver.core.routes import Route

Authorize = Callable[[UserInfo, Route], None]  # Raises ApiError Forbidden.

_PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"
_GROUP = "authentication.k8s.io"


def impersonate(user: UserInfo, headers: Iterable[tuple[str, str]], authorize: Authorize) -> UserInfo:
    """The user to act as: `user` itself without such headers. Raises ApiError Forbidden or BadRequest."""
    given = [(name.lower(), value) for name, value in headers if name.lower().startswith(_PREFIX)]
    if not given:
        return user
    name, uid, groups = "", "", []
    extra: dict[str, list[str]] = {}
    for header, value in given:
        if header == "impersonate-user":
            name = value
        elif header == "impersonate-uid":
            uid = value
        elif header == "impersonate-group":
            groups.append(value)
        elif header.startswith(_EXTRA):
            extra.setdefault(unquote(header[len(_EXTRA) :]), []).append(value)
    if not name:
        raise ApiError("BadRequest", "requested impersonation of groups, uid or extra without impersonating a user")
    account = split_service_account(name)
    if account is not None:
        authorize(user, _asked("serviceaccounts", account[1], namespace=account[0]))
        groups = groups or list(service_account_groups(account[0]))
    else:
        authorize(user, _asked("users", name))
    for group in groups:
        if account is None or group not in service_account_groups(account[0]):
            authorize(user, _asked("groups", group))
    if uid:
        authorize(user, _asked("uids", uid, group=_GROUP))
    for key, values in extra.items():
        for value in values:
            authorize(user, _asked("userextras", value, group=_GROUP, subresource=key))
    implied = UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED
    return UserInfo(
        name=name,
        uid=uid,
        groups=tuple(dict.fromkeys([*groups, implied])),
        extra=MappingProxyType({key: tuple(values) for key, values in extra.items()}),
    )


def _asked(plural: str, name: str, *, group: str = "", namespace: str = "", subresource: str = "") -> Route:
    return Route(
        path="",
        verb="impersonate",
        resource_request=True,
        group=group,
        version="v1",
        plural=plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
    )
