"""What objects count for under quotas, and which pods a scope means."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api import quantity
from pilotage.api.quotas import counted_by, in_scope, missing_from_containers, usage

_Object = dict[str, Any]


def container(name: str = "c", *, sidecar: bool = False, **requests: str) -> _Object:
    made: _Object = {"name": name, "resources": {"requests": requests}}
    return {**made, "restartPolicy": "Always"} if sidecar else made


def pod(*containers: _Object, phase: str = "Running", **spec: Any) -> _Object:
    return {"metadata": {}, "spec": {"containers": list(containers), **spec}, "status": {"phase": phase}}


def shown(document: _Object, plural: str = "pods", group: str = "") -> dict[str, str]:
    return {name: quantity.render(amount) for name, amount in usage(group, plural, document).items()}


def test_a_pod_counts_its_containers_together_or_an_init_container_that_needs_more() -> None:
    counted = shown(pod(container(cpu="100m"), container("d", cpu="200m"), initContainers=[container(cpu="1")]))
    assert counted["requests.cpu"] == counted["cpu"] == "1"
    assert counted["pods"] == counted["count/pods"] == "1"


def test_a_sidecar_counts_beside_what_comes_after_it() -> None:
    sidecar = container("s", sidecar=True, cpu="100m")
    counted = shown(pod(container(cpu="100m"), initContainers=[sidecar, container("i", cpu="300m")]))
    assert counted["requests.cpu"] == "400m"


def test_a_total_for_the_whole_pod_takes_the_place_of_its_containers_and_overhead_is_added() -> None:
    counted = shown(pod(container(cpu="100m"), resources={"requests": {"cpu": "2"}}, overhead={"cpu": "50m"}))
    assert counted["requests.cpu"] == "2050m"


@pytest.mark.parametrize(
    ("asked", "granted", "held", "pending", "expected"),
    [
        ("2", "1", "1", "Deferred", "2"),
        ("1", "1", "2", "", "2"),
        ("1", "2", "2", "", "2"),
        ("100", "2", "2", "Infeasible", "2"),
    ],
    ids=["it is to grow", "it has yet to shrink", "nobody has looked at it yet", "it can never be had"],
)
def test_a_pod_that_is_resized_counts_for_the_most_it_may_have(
    asked: str, granted: str, held: str, pending: str, expected: str
) -> None:
    found = pod(container(cpu="1"), resources={"requests": {"cpu": asked}, "limits": {"cpu": asked}})
    found["status"] |= {
        "allocatedResources": {"cpu": granted, "x.io/y": "9"},
        "resources": {"requests": {"cpu": held}, "limits": {"cpu": held}},
        "conditions": [{"type": "PodResizePending", "reason": pending}] if pending else [],
    }
    counted = shown(found)
    assert (counted["cpu"], counted["requests.cpu"]) == (expected, expected)
    limit = max(int(asked), int(held)) if pending != "Infeasible" else int(held)
    assert counted["limits.cpu"] == str(limit)
    assert "requests.x.io/y" not in counted


def test_a_finished_pod_is_only_an_object() -> None:
    assert shown(pod(container(cpu="1"), phase="Succeeded")) == {"count/pods": "1"}


def test_extended_resources_count_by_their_requests_only() -> None:
    counted = shown(pod({"name": "c", "resources": {"requests": {"x.io/y": "2"}, "limits": {"x.io/y": "2"}}}))
    assert counted["requests.x.io/y"] == "2" and "limits.x.io/y" not in counted and "x.io/y" not in counted


@pytest.mark.parametrize(
    ("plural", "group", "document", "expected"),
    [
        (
            "services",
            "",
            {"spec": {"type": "LoadBalancer", "ports": [{}, {}]}},
            {"services": "1", "services.loadbalancers": "1", "services.nodeports": "2", "count/services": "1"},
        ),
        (
            "persistentvolumeclaims",
            "",
            {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}},
            {
                "count/persistentvolumeclaims": "1",
                "persistentvolumeclaims": "1",
                "requests.storage": "2147483648",
                "fast.storageclass.storage.k8s.io/requests.storage": "2147483648",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            },
        ),
        ("deployments", "apps", {}, {"count/deployments.apps": "1"}),
    ],
    ids=["a balanced service", "a claim of a class", "any other object"],
)
def test_other_kinds(plural: str, group: str, document: _Object, expected: dict[str, str]) -> None:
    assert shown(document, plural, group) == expected
    assert {counted_by(name) for name in expected} == {(group, plural)}


PRIORITY = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
ELSEWHERE = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}}


@pytest.mark.parametrize(
    ("quota", "spec", "expected"),
    [
        ({}, {}, True),
        ({"scopes": ["Terminating"]}, {"activeDeadlineSeconds": 5}, True),
        ({"scopes": ["Terminating"]}, {}, False),
        ({"scopes": ["NotTerminating"]}, {}, True),
        ({"scopes": ["BestEffort"]}, {}, True),
        ({"scopes": ["BestEffort"]}, {"containers": [container(cpu="1")]}, False),
        ({"scopes": ["NotBestEffort"]}, {"containers": [container(cpu="1")]}, True),
        ({"scopes": ["BestEffort", "Terminating"]}, {}, False),
        ({"scopeSelector": {"matchExpressions": [PRIORITY]}}, {"priorityClassName": "high"}, True),
        ({"scopeSelector": {"matchExpressions": [PRIORITY]}}, {"priorityClassName": "low"}, False),
        ({"scopeSelector": {"matchExpressions": [{**PRIORITY, "operator": "NotIn"}]}}, {}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {"affinity": ELSEWHERE}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, {}, False),
    ],
)
def test_scopes(quota: _Object, spec: _Object, *, expected: bool) -> None:
    containers = spec.pop("containers", [])
    assert in_scope(quota, "", "pods", pod(*containers, **spec)) is expected


@pytest.mark.parametrize(
    ("operator", "claim", "expected"),
    [
        ("In", {"spec": {"volumeAttributesClassName": "gold"}}, True),
        ("In", {"spec": {"volumeAttributesClassName": "silver"}}, False),
        ("In", {"spec": {}}, False),
        ("In", {"spec": {}, "status": {"currentVolumeAttributesClassName": "gold"}}, True),
        ("NotIn", {"spec": {"volumeAttributesClassName": "silver"}}, True),
    ],
)
def test_claims_are_counted_by_the_class_of_their_attributes(operator: str, claim: _Object, *, expected: bool) -> None:
    gold = {"scopeName": "VolumeAttributesClass", "operator": operator, "values": ["gold"]}
    quota = {"scopeSelector": {"matchExpressions": [gold]}}
    assert in_scope(quota, "", "persistentvolumeclaims", claim) is expected
    assert not in_scope(quota, "", "pods", pod())


def test_quotas_with_scopes_leave_other_kinds_alone() -> None:
    assert not in_scope({"scopes": ["BestEffort"]}, "", "services", {})


def test_what_is_limited_must_be_said_by_every_container() -> None:
    silent = pod(container("a", cpu="1"), container("b"))
    assert missing_from_containers(["requests.cpu", "limits.cpu", "pods"], silent) == {
        "limits.cpu": ["a", "b"],
        "requests.cpu": ["b"],
    }
