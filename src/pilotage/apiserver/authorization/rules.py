"""One policy rule, compiled: does it cover a request, does it cover another rule.

Pure. Made from the `rules` of Roles and ClusterRoles by `rbac`; compared with each other by `escalation`.

Specification: PolicyRule in the Kubernetes 1.36 API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

ALL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Sets of what is allowed; the star stands for everything. `names` empty means any name."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()

    @classmethod
    def from_wire(cls, rule: Mapping[str, Any]) -> Rule:
        """From a PolicyRule."""
        return cls(
            verbs=frozenset(rule.get("verbs") or ()),
            groups=frozenset(rule.get("apiGroups") or ()),
            resources=frozenset(rule.get("resources") or ()),
            names=frozenset(rule.get("resourceNames") or ()),
            urls=frozenset(rule.get("nonResourceURLs") or ()),
        )

    def to_wire(self) -> dict[str, list[str]]:
        """As a PolicyRule, sorted."""
        parts = (
            ("verbs", self.verbs),
            ("apiGroups", self.groups),
            ("resources", self.resources),
            ("resourceNames", self.names),
            ("nonResourceURLs", self.urls),
        )
        return {name: sorted(values) for name, values in parts if values}

    def allows(self, verb: str, group: str, resource: str, name: str) -> bool:
        """Whether it covers a request for `resource`, which is `pods` or `pods/log`."""
        if self.names and name not in self.names:
            return False
        return self.covers_kind(verb, group, resource)

    def covers_kind(self, verb: str, group: str, resource: str) -> bool:
        """As `allows`, names aside."""
        if verb not in self.verbs and ALL not in self.verbs:
            return False
        if group not in self.groups and ALL not in self.groups:
            return False
        if resource in self.resources or ALL in self.resources:
            return True
        _, slash, subresource = resource.partition("/")
        return bool(slash) and f"*/{subresource}" in self.resources

    def allows_url(self, verb: str, path: str) -> bool:
        """Whether it covers a request for a path that is no resource."""
        if verb not in self.verbs and ALL not in self.verbs:
            return False
        return any(
            url in (ALL, path) or (url.endswith("*") and path.startswith(url.rstrip("*"))) for url in self.urls
        )  # fmt: skip


def covered(wanted: Iterable[Rule], held: Iterable[Rule]) -> list[Rule]:
    """The parts of `wanted` that no held rule covers, one verb, group, resource and name each."""
    owned = tuple(held)
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(mine, part) for mine in owned)]


def _parts(rule: Rule) -> Iterator[Rule]:
    for verb, url in product(rule.verbs, rule.urls):
        yield Rule(verbs=frozenset((verb,)), urls=frozenset((url,)))
    names: Iterable[frozenset[str]] = [frozenset((name,)) for name in rule.names] or [frozenset()]
    for verb, group, resource, name in product(rule.verbs, rule.groups, rule.resources, names):
        yield Rule(
            verbs=frozenset((verb,)), groups=frozenset((group,)), resources=frozenset((resource,)), names=name
        )  # fmt: skip


def _covers(held: Rule, part: Rule) -> bool:
    """Whether a rule covers another that has one value in each set; a star is covered by a star only."""
    (verb,) = part.verbs
    if part.urls:
        (url,) = part.urls
        return held.allows_url(verb, url)
    (group,), (resource,) = part.groups, part.resources
    if held.names and not part.names <= held.names:
        return False
    if held.names and not part.names:
        return False
    return held.covers_kind(verb, group, resource)
