"""Asking instead of doing: SubjectAccessReview and its kin.

Called by the server for these kinds, which are answered and never stored.

Specification: authorization.k8s.io/v1 in the Kubernetes 1.36 API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pilotage.api.status import ApiError
from pilotage.apiserver.authentication.user import MASTERS, UserInfo
from pilotage.apiserver.authorization.authorizer import Authorizer
from pilotage.apiserver.authorization.rules import Rule
from pilotage.apiserver.core.routes import Route

_GROUP = "authorization.k8s.io/v1"
_EVERYTHING = (
    Rule(verbs=frozenset("*"), groups=frozenset("*"), resources=frozenset("*")),
    Rule(verbs=frozenset("*"), urls=frozenset("*")),
)


def review_access(authorizer: Authorizer, user: UserInfo, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a SelfSubjectAccessReview, SubjectAccessReview or LocalSubjectAccessReview."""
    spec = body.get("spec") or {}
    subject = user if kind == "SelfSubjectAccessReview" else _subject(spec)
    if (spec.get("resourceAttributes") is None) == (spec.get("nonResourceAttributes") is None):
        raise ApiError(
            "Invalid",
            f'{kind}.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: null: '
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )
    allowed = authorizer.allows(subject, _asked(spec))
    return {
        "apiVersion": _GROUP,
        "kind": kind,
        "metadata": {},
        "spec": dict(spec),
        "status": {"allowed": allowed},
    }


def review_rules(authorizer: Authorizer, user: UserInfo, body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a SelfSubjectRulesReview: everything the user may do in a namespace."""
    spec = body.get("spec") or {}
    namespace = spec.get("namespace", "")
    if not namespace:
        raise ApiError("BadRequest", "no namespace on request")
    rules = [*_EVERYTHING] if MASTERS in user.groups else authorizer.rbac.rules(user, namespace)
    wire = [rule.to_wire() for rule in rules]
    return {
        "apiVersion": _GROUP,
        "kind": "SelfSubjectRulesReview",
        "metadata": {},
        "spec": dict(spec),
        "status": {
            "resourceRules": [rule for rule in wire if "resources" in rule],
            "nonResourceRules": [rule for rule in wire if "nonResourceURLs" in rule],
            "incomplete": bool(user.node),  # What a node may do because of its pods is not a rule.
        },
    }


def review_self(user: UserInfo) -> dict[str, Any]:
    """Answer a SelfSubjectReview: who am I."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "SelfSubjectReview",
        "metadata": {},
        "status": {"userInfo": user.to_wire()},
    }


def _subject(spec: Mapping[str, Any]) -> UserInfo:
    extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(
        name=spec.get("user") or "",
        uid=spec.get("uid") or "",
        groups=tuple(spec.get("groups") or ()),
        extra=MappingProxyType(extra),
    )


def _asked(spec: Mapping[str, Any]) -> Route:
    attributes = spec.get("resourceAttributes")
    if attributes is None:
        plain = spec["nonResourceAttributes"]
        return Route(path=plain.get("path", ""), verb=plain.get("verb", "").lower())
    return Route(
        path="",
        verb=attributes.get("verb", ""),
        resource_request=True,
        group=attributes.get("group", ""),
        version=attributes.get("version", ""),
        plural=attributes.get("resource", ""),
        namespace=attributes.get("namespace", ""),
        name=attributes.get("name", ""),
        subresource=attributes.get("subresource", ""),
        fields=tuple(
            (item.get("key", ""), item["values"][0])
            for item in (attributes.get("fieldSelector") or {}).get("requirements") or ()
            if item.get("operator") == "In" and len(item.get("values") or ()) == 1
        ),
    )
