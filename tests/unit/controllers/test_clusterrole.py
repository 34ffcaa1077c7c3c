"""Aggregated ClusterRoles: the union of what their selectors choose."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.rbac_v1 import ClusterRole
from pilotage.controllers.clusterrole.core import aggregated

PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
JOBS = {"verbs": ["get"], "apiGroups": ["batch"], "resources": ["jobs"]}


def role(name: str, *rules: dict[str, Any], labels: dict[str, str] | None = None, **fields: Any) -> ClusterRole:
    metadata = {"name": name, "labels": labels or {}}
    return convert(ClusterRole, {"metadata": metadata, "rules": list(rules), **fields})


def selecting(*selectors: dict[str, Any]) -> dict[str, Any]:
    return {"aggregationRule": {"clusterRoleSelectors": list(selectors)}}


CHOSEN = {"matchLabels": {"to": "view"}}


def test_rules_come_in_the_order_of_names_and_none_twice() -> None:
    view = role("view", **selecting(CHOSEN))
    others = [role("b", JOBS, PODS, labels={"to": "view"}), role("a", PODS, labels={"to": "view"}), role("c", JOBS)]
    assert aggregated(view, [view, *others]) == (PODS, JOBS)


def test_nothing_is_written_when_nothing_differs() -> None:
    view = role("view", PODS, labels={"to": "view"}, **selecting(CHOSEN))
    assert aggregated(view, [view, role("a", PODS, labels={"to": "view"})]) is None
    assert aggregated(role("plain", PODS), [view]) is None


def test_rules_leave_with_the_role_they_came_from() -> None:
    assert aggregated(role("view", PODS, **selecting(CHOSEN)), []) == ()


@pytest.mark.parametrize("selector", [{"matchExpressions": [{"key": "to", "operator": "Whatever"}]}])
def test_a_selector_that_means_nothing_selects_nothing(selector: dict[str, Any]) -> None:
    view = role("view", **selecting(selector))
    assert aggregated(view, [view, role("a", PODS, labels={"to": "view"})]) is None
