"""Containers that are added to look into a pod: what they may not ask for, and that they stay as they are."""

from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN
from pilotage.api.schema_defaults import default
from pilotage.api.schema_validation import validate
from pilotage.apiserver.strategy import check_update

POD = next(resource for resource in BUILTIN if resource.kind == "Pod")


def pod(*added: dict[str, Any]) -> dict[str, Any]:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "app"}], "ephemeralContainers": list(added)},
    }
    default(POD, document)
    return document


def look(**fields: Any) -> dict[str, Any]:
    return {"name": "look", "image": "tools", **fields}


@pytest.mark.parametrize(
    ("added", "problems"),
    [
        ([look(targetContainerName="c", stdin=True, tty=True)], []),
        ([look(ports=[{"containerPort": 80}])], ["ports: Forbidden: cannot be set for an Ephemeral Container"]),
        (
            [look(resources={"limits": {"cpu": "1"}})],
            ["resources: Forbidden: cannot be set for an Ephemeral Container"],
        ),
        ([look(targetContainerName="d")], ['targetContainerName: Not found: "d"']),
        ([look(name="c")], ['name: Duplicate value: "c"']),
    ],
    ids=["nothing special", "ports", "resources", "another pod's container", "a name that is taken"],
)
def test_what_they_may_ask_for(added: list[dict[str, Any]], problems: list[str]) -> None:
    found = [f"{error.field}: {error.message}" for error in validate(POD, pod(*added))]
    assert found == [f"spec.ephemeralContainers[0].{problem}" for problem in problems]


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        ((look(), look(name="again")), ""),
        ((look(image="other"),), 'existing ephemeral containers "look" may not be changed'),
        ((look(name="again"),), 'existing ephemeral containers "look" may not be removed'),
    ],
    ids=["added", "changed", "removed"],
)
def test_they_are_only_ever_added(after: tuple[dict[str, Any], ...], problem: str) -> None:
    found = check_update(POD, pod(look()), pod(*after), "ephemeralcontainers")
    assert [error.message for error in found] == ([f"Forbidden: {problem}"] if problem else [])
