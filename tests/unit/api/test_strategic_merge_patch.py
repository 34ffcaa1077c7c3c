"""Strategic merge patch: keyed lists, directives, order."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.catalogue import Resource, by_kind
from pilotage.api.patch import PatchError, strategic_merge_patch


def resource(kind: str, group: str = "") -> Resource:
    found = by_kind(group, "v1", kind)
    assert found is not None
    return found


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def patched(spec: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return strategic_merge_patch(pod(**spec), {"spec": patch}, resource("Pod"))["spec"]


A = {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}
B = {"name": "b", "image": "b:1"}


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        pytest.param(
            {"containers": [A, B]},
            {"containers": [{"name": "a", "image": "a:2"}]},
            {"containers": [{**A, "image": "a:2"}, B]},
            id="an element is merged by its key",
        ),
        pytest.param(
            {"containers": [A]},
            {"containers": [{"name": "a", "env": [{"name": "X", "value": None}]}]},
            {"containers": [{**A, "env": [{"name": "X"}]}]},
            id="null inside nested elements removes",
        ),
        pytest.param(
            {"containers": [A, B]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [B]},
            id="an element is deleted",
        ),
        pytest.param(
            {"containers": [A, B]},
            {"containers": [{"$patch": "replace"}, {"name": "c"}]},
            {"containers": [{"name": "c"}]},
            id="a list is replaced",
        ),
        pytest.param(
            {"containers": [A, B]},
            {"containers": [{"$patch": "replace"}, {"name": "c"}, {"name": "c", "image": "c:2"}]},
            {"containers": [{"name": "c"}, {"name": "c", "image": "c:2"}]},
            id="what replaces a list is not merged with itself",
        ),
        pytest.param(
            {"securityContext": {"runAsUser": 1, "runAsGroup": 2}},
            {"securityContext": {"$patch": "replace", "runAsUser": 3}},
            {"securityContext": {"runAsUser": 3}},
            id="a map is replaced",
        ),
        pytest.param(
            {"tolerations": [{"key": "a"}]},
            {"tolerations": [{"key": "b"}]},
            {"tolerations": [{"key": "b"}]},
            id="an atomic list is replaced",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
            id="retainKeys drops the sibling of a union",
        ),
        pytest.param({"hostNetwork": True, "volumes": []}, {"hostNetwork": None}, {"volumes": []}, id="null removes"),
    ],
)
def test_patch(before: dict[str, Any], patch: dict[str, Any], after: dict[str, Any]) -> None:
    assert patched(before, patch) == after


def test_set_element_order_orders_what_it_names_and_keeps_the_servers_own_elements_in_place() -> None:
    before = {"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}]}
    patch = {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
        "containers": [{"name": "c"}],
    }
    assert names(patched(before, patch)["containers"]) == ["sidecar", "b", "a", "c"]


def test_an_order_alone_reorders() -> None:
    before = {"containers": [{"name": "a"}, {"name": "b"}]}
    patch = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a"}]}
    assert names(patched(before, patch)["containers"]) == ["b", "a"]


def test_finalizers_are_a_set_with_deletions() -> None:
    document = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge_patch(document, patch, resource("Pod"))["metadata"]["finalizers"] == ["c", "b"]


@pytest.mark.parametrize("name", ["finalizers", "$setElementOrder/finalizers"])
def test_finalizers_are_strings(name: str) -> None:
    with pytest.raises(PatchError, match="must be a list of strings"):
        strategic_merge_patch(pod(), {"metadata": {"finalizers": ["a"], name: [{}]}}, resource("Pod"))


def test_two_ports_of_one_number_are_told_apart_by_protocol() -> None:
    tcp, udp = ({"name": p.lower(), "port": 53, "protocol": p} for p in ("TCP", "UDP"))
    document = {"spec": {"ports": [tcp, udp]}}
    patch = {"spec": {"ports": [{"port": 53, "protocol": "UDP", "targetPort": 5353}]}}
    ports = strategic_merge_patch(document, patch, resource("Service"))["spec"]["ports"]
    assert sorted(ports, key=lambda p: p["name"]) == [tcp, {**udp, "targetPort": 5353}]


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"containers": [{"image": "x"}]}, id="element without its merge key"),
        pytest.param({"containers": [{"name": "a", "$patch": "upside-down"}]}, id="unknown directive"),
        pytest.param({"securityContext": {"$patch": 1}}, id="directive of the wrong type"),
        pytest.param({"securityContext": {"$retainKeys": [{}]}}, id="keys to retain that are no names"),
        pytest.param({"containers": [{"name": {}}]}, id="merge key that is no plain value"),
        pytest.param({"containers": [], "$setElementOrder/containers": [{"name": []}]}, id="order by no plain value"),
    ],
)
def test_malformed(patch: dict[str, Any]) -> None:
    with pytest.raises(PatchError) as refused:
        patched({"containers": [A]}, patch)
    assert refused.value.code == 400
