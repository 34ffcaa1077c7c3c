"""The resources this server serves now: the built-in ones, and whatever is added while it runs.

Stands apart because discovery, routing and OpenAPI ask it and custom resources will change it. Lookups are one
dictionary access; documents derived from it are cached by its `version`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.apiserver.core.stored_form import home_of

_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def version_priority(name: str) -> tuple[int, int, int, str]:
    """Sorts stable versions before beta before alpha, newer before older, the rest by name.

    Source: "Version priority" in the documentation of custom resource definition versioning.
    """
    found = _VERSION.fullmatch(name)
    if found is None:
        return (3, 0, 0, name)
    stability = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stability, -int(found[1]), -int(found[3] or 0), name)


class Resources:
    """An index of resources by group, version and plural, in order of preference."""

    def __init__(self, resources: Iterable[Resource] = BUILTIN) -> None:
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self.version = 0
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        """Serve a resource from now on, replacing one of the same name."""
        self._resources[(resource.group, resource.version, resource.plural)] = resource
        self.version += 1

    def remove(self, resource: Resource) -> None:
        """Stop serving a resource; its objects stay."""
        self._resources.pop((resource.group, resource.version, resource.plural), None)
        self.version += 1

    def lookup(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource, or None."""
        return self._resources.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource of a kind, or None."""
        matches = (r for r in self._resources.values() if (r.group, r.version, r.kind) == (group, version, kind))
        return next(matches, None)

    def equivalents(self, resource: Resource) -> tuple[Resource, ...]:
        """Other resources that show the same objects: further versions of it."""
        home = home_of(resource)
        return tuple(each for each in self._resources.values() if home_of(each) == home and each is not resource)

    def all(self) -> tuple[Resource, ...]:
        """Every resource, in order of preference."""
        return tuple(self._resources.values())

    def group_versions(self) -> Mapping[str, Mapping[str, tuple[Resource, ...]]]:
        """Group → version → resources, in order of preference; the first version of a group is the preferred one."""
        found: dict[str, dict[str, list[Resource]]] = {}
        for resource in self._resources.values():
            found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return {
            group: {version: tuple(versions[version]) for version in sorted(versions, key=version_priority)}
            for group, versions in found.items()
        }
