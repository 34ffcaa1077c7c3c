"""The rules an aggregated ClusterRole should have. Pure; fed by `reconciler.py`."""

from collections.abc import Iterable
from typing import Any

from pilotage.api.labels import SelectorError, from_label_selector
from pilotage.api.meta_v1 import LabelSelector
from pilotage.api.rbac_v1 import ClusterRole

Rules = tuple[dict[str, Any], ...]


def selects(role: ClusterRole, other: ClusterRole) -> bool:
    """Whether `role` aggregates `other`."""
    if role.aggregation_rule is None or role.metadata.name == other.metadata.name:
        return False
    return any(_matches(selector, other) for selector in role.aggregation_rule.cluster_role_selectors)


def _matches(selector: LabelSelector, role: ClusterRole) -> bool:
    try:
        parsed = from_label_selector(selector)
    except SelectorError:
        return False
    return parsed is not None and parsed.matches(role.metadata.labels)


def aggregated(role: ClusterRole, roles: Iterable[ClusterRole]) -> Rules | None:
    """The rules to write; None when the role has them, or aggregates nothing."""
    if role.aggregation_rule is None:
        return None
    rules: list[dict[str, Any]] = []
    for other in sorted(roles, key=lambda item: item.metadata.name):
        if selects(role, other):
            rules += [rule for rule in other.rules or () if rule not in rules]
    return None if tuple(rules) == (role.rules or ()) else tuple(rules)
