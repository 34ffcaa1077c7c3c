"""The built-in resources against Kubernetes' own definitions, and against the typed kinds."""

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

import pilotage.api
from pilotage.api.catalogue import BUILTIN, Resource, by_api_version, by_kind, lookup
from pilotage.api.schema import raw_definitions


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda resource: f"{resource.plural}.{resource.api_version}")
def test_every_resource_has_the_definition_it_names(resource: Resource) -> None:
    definition = msgspec.json.decode(raw_definitions()[resource.schema])
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    assert wanted in definition["x-kubernetes-group-version-kind"]
    assert by_kind(resource.group, resource.version, resource.kind) is resource
    assert lookup(resource.group, resource.version, resource.plural) is resource
    if resource.stored:
        assert "status" in definition["properties"] or resource.subresource("status") is None


def typed_kinds() -> list[Any]:
    kinds = []
    for module in pkgutil.iter_modules(pilotage.api.__path__):
        if module.name.endswith(("_v1", "_v2")):
            loaded = importlib.import_module(f"pilotage.api.{module.name}")
            kinds += [
                value
                for value in vars(loaded).values()
                if isinstance(value, type) and isinstance(getattr(value, "plural", None), str)
            ]
    return kinds


@pytest.mark.parametrize("kind", typed_kinds(), ids=lambda kind: kind.__name__)
def test_typed_kinds_agree(kind: Any) -> None:
    if not kind.kind:
        return  # a base class
    resource = by_api_version(kind.api_version, kind.kind)
    assert resource is not None
    assert (kind.plural, kind.namespaced) == (resource.plural, resource.namespaced)


@pytest.mark.parametrize(
    ("plural", "place", "path"),
    [
        ("pods", {}, "/api/v1/pods"),
        ("pods", {"namespace": "a", "name": "b", "subresource": "log"}, "/api/v1/namespaces/a/pods/b/log"),
        ("nodes", {"namespace": "a", "name": "b"}, "/api/v1/nodes/b"),
    ],
)
def test_paths(plural: str, place: dict[str, str], path: str) -> None:
    resource = lookup("", "v1", plural)
    assert resource is not None and resource.path(**place) == path


def test_short_names_are_unique() -> None:
    # Events and autoscalers are one kind under two group-versions.
    known = {name: resource.plural for resource in BUILTIN for name in resource.short_names}
    assert all(known[name] == resource.plural for resource in BUILTIN for name in resource.short_names)
