"""Roles and bindings, compiled per user.

The objects are read from the cache when a user first asks after a change of any of them, so the usual question is a
dictionary access. Aggregated ClusterRoles are the union of the roles they select, computed here as well as by nobody
else. Called by the `authorizer`.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.api.schema_rules_workload import selects
from pilotage.apiserver.authentication.user import UserInfo, service_account_name
from pilotage.apiserver.authorization.rules import Rule
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import Document, Documents

GROUP = "rbac.authorization.k8s.io"

# Users and remembered answers kept at once; beyond it the cache starts over.
USERS_MAX = 1024
ANSWERS_MAX = 1024


@dataclass(slots=True)
class _Permissions:
    """What one user may do: rules by namespace ("" for the cluster), and answers already given."""

    rules: dict[str, list[Rule]] = field(default_factory=dict)
    answers: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def in_namespace(self, namespace: str) -> Iterator[Rule]:
        yield from self.rules.get("", ())
        if namespace:
            yield from self.rules.get(namespace, ())


class RBAC:
    """Permissions by roles."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._by_subject: dict[str, list[tuple[str, list[Rule]]]] | None = None
        self._users: dict[tuple[str, tuple[str, ...]], _Permissions] = {}

    def invalidate(self) -> None:
        """A role or binding has changed."""
        self._by_subject = None
        self._users.clear()

    def allows(self, user: UserInfo, asked: Route) -> bool:
        """Whether a role of the user covers the request."""
        permissions = self._permissions(user)
        if not asked.resource_request:
            return any(rule.allows_url(asked.verb, asked.path) for rule in permissions.rules.get("", ()))
        resource = f"{asked.plural}/{asked.subresource}" if asked.subresource else asked.plural
        key = (asked.verb, asked.group, resource, asked.namespace)
        answer = permissions.answers.get(key)
        if answer is None:
            answer = any(
                not rule.names and rule.covers_kind(asked.verb, asked.group, resource)
                for rule in permissions.in_namespace(asked.namespace)
            )
            if len(permissions.answers) >= ANSWERS_MAX:
                permissions.answers.clear()
            permissions.answers[key] = answer
        if answer or not asked.name:
            return answer
        return any(
            rule.names and rule.allows(asked.verb, asked.group, resource, asked.name)
            for rule in permissions.in_namespace(asked.namespace)
        )

    def rules(self, user: UserInfo, namespace: str) -> list[Rule]:
        """Every rule that holds for a user in a namespace, or in the cluster for ""."""
        return list(self._permissions(user).in_namespace(namespace))

    def rules_of_role(self, kind: str, namespace: str, name: str) -> list[Rule] | None:
        """What a Role or ClusterRole grants; None when there is none of that name."""
        plural = "roles" if kind == "Role" else "clusterroles"
        role = self._documents.get(GROUP, plural, namespace if kind == "Role" else "", name)
        return None if role is None else self.effective_rules(role)

    def effective_rules(self, role: Document, within: frozenset[str] = frozenset()) -> list[Rule]:
        """The rules of a role, with those it aggregates; `within` are the roles already being expanded."""
        rules = [Rule.from_wire(rule) for rule in role.get("rules") or ()]
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        if selectors:
            within |= {role["metadata"]["name"]}
            for other in self._documents.list(GROUP, "clusterroles"):
                labels = other["metadata"].get("labels") or {}
                if other["metadata"]["name"] not in within and any(selects(item, labels) for item in selectors):
                    rules += self.effective_rules(other, within)
        return list(dict.fromkeys(rules))

    def _permissions(self, user: UserInfo) -> _Permissions:
        key = (user.name, user.groups)
        found = self._users.get(key)
        if found is None:
            if len(self._users) >= USERS_MAX:
                self._users.clear()
            found = self._users[key] = self._compile(user)
        return found

    def _compile(self, user: UserInfo) -> _Permissions:
        if self._by_subject is None:
            self._by_subject = self._index()
        permissions = _Permissions()
        for subject in (f"u:{user.name}", *(f"g:{group}" for group in user.groups)):
            for namespace, rules in self._by_subject.get(subject, ()):
                permissions.rules.setdefault(namespace, []).extend(rules)
        return permissions

    def _index(self) -> dict[str, list[tuple[str, list[Rule]]]]:
        index: dict[str, list[tuple[str, list[Rule]]]] = {}
        for plural in ("clusterrolebindings", "rolebindings"):
            for binding in self._documents.list(GROUP, plural):
                namespace = binding["metadata"].get("namespace", "")
                reference: Mapping[str, Any] = binding.get("roleRef") or {}
                rules = self.rules_of_role(reference.get("kind", ""), namespace, reference.get("name", ""))
                if rules is None:
                    continue
                for subject in binding.get("subjects") or ():
                    index.setdefault(_subject_key(subject, namespace), []).append((namespace, rules))
        return index


def _subject_key(subject: Mapping[str, Any], namespace: str) -> str:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "Group":
        return f"g:{name}"
    if kind == "ServiceAccount":
        return f"u:{service_account_name(subject.get('namespace') or namespace, name)}"
    return f"u:{name}"
