"""The chain of those who may say yes: masters, the node's own rules, roles. Whoever nobody allows is forbidden.

Called once per request by the server's gate. The server tells it about every change of a role, a binding or a pod
through `observe`.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from __future__ import annotations

import json

from pilotage.api.status import ApiError, StatusDetails
from pilotage.apiserver.authentication.user import MASTERS, UserInfo
from pilotage.apiserver.authorization.node import NodeGraph
from pilotage.apiserver.authorization.rbac import GROUP, RBAC
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Document, Documents


class Authorizer:
    """May a user do what a request asks?"""

    def __init__(self, documents: Documents) -> None:
        self.rbac = RBAC(documents)
        self.nodes = NodeGraph(documents)

    def observe(self, group: str, plural: str, previous: Document | None, current: Document | None) -> None:
        """An object has changed; called for every change of the cluster, so it must be cheap."""
        if group == GROUP:
            self.rbac.invalidate()
        elif plural == "pods" and not group:
            self.nodes.observe(previous, current)

    def allows(self, user: UserInfo, asked: Route) -> bool:
        """Whether the request may go on."""
        if MASTERS in user.groups:
            return True
        node = user.node
        return bool(node and self.nodes.allows(node, asked)) or self.rbac.allows(user, asked)

    def authorize(self, user: UserInfo, asked: Route) -> None:
        """Raises ApiError Forbidden unless the request may go on."""
        if not self.allows(user, asked):
            raise forbidden(user, asked)


def forbidden(user: UserInfo, asked: Route) -> ApiError:
    """403 as Kubernetes words it."""
    if not asked.resource_request:
        return ApiError(
            "Forbidden", f"forbidden: User {_quoted(user.name)} cannot {asked.verb} path {_quoted(asked.path)}"
        )
    resource = f"{asked.plural}/{asked.subresource}" if asked.subresource else asked.plural
    where = f" in the namespace {_quoted(asked.namespace)}" if asked.namespace else " at the cluster scope"
    qualified = f"{asked.plural}.{asked.group}" if asked.group else asked.plural
    named = f" {_quoted(asked.name)}" if asked.name else ""
    return ApiError(
        "Forbidden",
        f"{qualified}{named} is forbidden: User {_quoted(user.name)} cannot {asked.verb} resource {_quoted(resource)} "
        f"in API group {_quoted(asked.group)}{where}",
        details=StatusDetails(name=asked.name, group=asked.group, kind=asked.plural),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
