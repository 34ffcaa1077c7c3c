"""The resources this server serves now: the built-in ones, and whatever is added while it runs.

Stands apart because discovery, routing and OpenAPI ask it and custom resources will change it. Lookups are one
dictionary access; documents derived from it are cached by its `version`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pilotage.api.catalogue import BUILTIN, Resource


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

    def all(self) -> tuple[Resource, ...]:
        """Every resource, in order of preference."""
        return tuple(self._resources.values())

    def group_versions(self) -> Mapping[str, Mapping[str, tuple[Resource, ...]]]:
        """Group → version → resources, in order of preference; the first version of a group is the preferred one."""
        found: dict[str, dict[str, list[Resource]]] = {}
        for resource in self._resources.values():
            found.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return {
            group: {version: tuple(items) for version, items in versions.items()} for group, versions in found.items()
        }
