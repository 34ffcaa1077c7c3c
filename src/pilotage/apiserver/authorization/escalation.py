"""Nobody grants by a role what they may not do themselves.

Called by admission on every write of a role or binding.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pilotage.api.status import ApiError, StatusDetails
from pilotage.apiserver.authentication.user import MASTERS, UserInfo
from pilotage.apiserver.authorization.authorizer import Authorizer
from pilotage.apiserver.authorization.rbac import GROUP
from pilotage.apiserver.authorization.rules import Rule, covered
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Document

_REPORTED_MAX = 20


def check_escalation(authorizer: Authorizer, user: UserInfo, plural: str, document: Document) -> None:
    """Raises ApiError Forbidden when a role or binding would grant more than its writer holds."""
    if MASTERS in user.groups:
        return
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "")
    if plural in ("roles", "clusterroles"):
        if _may(authorizer, user, "escalate", plural, namespace, metadata["name"]):
            return
        wanted = authorizer.rbac.effective_rules(document)
    else:
        role = document["roleRef"]
        bound = "roles" if role["kind"] == "Role" else "clusterroles"
        if _may(authorizer, user, "bind", bound, namespace, role["name"]):
            return
        found = authorizer.rbac.rules_of_role(role["kind"], namespace, role["name"])
        if found is None:
            missing = f'{bound[:-1]}.{GROUP} "{role["name"]}" not found'
            raise ApiError("NotFound", missing, details=StatusDetails(name=role["name"], group=GROUP, kind=bound))
        wanted = found
    lacking = covered(wanted, authorizer.rbac.rules(user, namespace))
    if lacking:
        raise _refused(user, plural, metadata["name"], lacking)


def _may(authorizer: Authorizer, user: UserInfo, verb: str, plural: str, namespace: str, name: str) -> bool:
    asked = Route(
        path="",
        verb=verb,
        resource_request=True,
        group=GROUP,
        version="v1",
        plural=plural,
        namespace=namespace,
        name=name,
    )
    return authorizer.allows(user, asked)


def _refused(user: UserInfo, plural: str, name: str, lacking: Sequence[Rule]) -> ApiError:
    listed = "\n".join(
        "{" + ", ".join(f"{key[0].upper()}{key[1:]}:{json.dumps(value)}" for key, value in rule.to_wire().items()) + "}"
        for rule in lacking[:_REPORTED_MAX]
    )
    return ApiError(
        "Forbidden",
        f'{plural}.{GROUP} "{name}" is forbidden: user "{user.name}" (groups={json.dumps(list(user.groups))}) is '
        f"attempting to grant RBAC permissions not currently held:\n{listed}",
        details=StatusDetails(name=name, group=GROUP, kind=plural),
    )
