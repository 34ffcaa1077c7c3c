"""Cells, as kubectl's users know them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.catalogue import BUILTIN, lookup
from pilotage.apiserver.core.columns import columns_of
from pilotage.apiserver.core.columns.column import duration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(**delta: float) -> str:
    return (NOW - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def cells(path: str, document: dict[str, Any], *, wide: bool = False) -> dict[str, Any]:
    group, _, plural = path.rpartition("/")
    resource = lookup(group, "v1", plural)
    assert resource is not None
    columns = [column for column in columns_of(resource) if wide or column.priority == 0]
    return {column.name: column.cell(document, NOW) for column in columns}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3600, "60m"),
        (10_800, "3h"),
        (11_100, "3h5m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (64_000_000, "2y10d"),
        (300_000_000, "9y"),
        (-1, "0s"),
        (-60, "<invalid>"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def pod(status: dict[str, Any], spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "creationTimestamp": ago(minutes=5), **metadata},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], **(spec or {})},
        "status": status,
    }


def state(name: str, ready: bool = False, restarts: int = 0, **kind: Any) -> dict[str, Any]:
    return {"name": "a", "ready": ready, "restartCount": restarts, "state": {name: kind}}


RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
POD_STATES: list[Any] = [
    pytest.param({"phase": "Pending"}, {}, {}, ("0/2", "Pending", "0"), id="waiting for a node"),
    pytest.param(
        {**RUNNING, "containerStatuses": [state("running", True), state("running", True, 2)]},
        {},
        {},
        ("2/2", "Running", "2"),
        id="running",
    ),
    pytest.param(
        {"phase": "Running", "containerStatuses": [state("waiting", reason="CrashLoopBackOff", restarts=0)]},
        {},
        {},
        ("0/2", "CrashLoopBackOff", "0"),
        id="crash loop",
    ),
    pytest.param(
        {"phase": "Pending", "initContainerStatuses": [state("running")]},
        {"initContainers": [{"name": "a"}, {"name": "c"}]},
        {},
        ("0/2", "Init:0/2", "0"),
        id="first init container",
    ),
    pytest.param(
        {"phase": "Pending", "initContainerStatuses": [state("terminated", exitCode=3)]},
        {"initContainers": [{"name": "a"}]},
        {},
        ("0/2", "Init:ExitCode:3", "0"),
        id="failed init container",
    ),
    pytest.param(
        {"phase": "Succeeded", "containerStatuses": [state("terminated", reason="Completed", exitCode=0)]},
        {},
        {},
        ("0/2", "Completed", "0"),
        id="completed",
    ),
    pytest.param(
        {**RUNNING, "containerStatuses": [state("running", True)]},
        {},
        {"deletionTimestamp": ago(seconds=1)},
        ("1/2", "Terminating", "0"),
        id="terminating",
    ),
    pytest.param({"phase": "Failed", "reason": "Evicted"}, {}, {}, ("0/2", "Evicted", "0"), id="evicted"),
]


@pytest.mark.parametrize(("status", "spec", "metadata", "expected"), POD_STATES)
def test_pods(status: Any, spec: Any, metadata: Any, expected: tuple[str, str, str]) -> None:
    shown = cells("/pods", pod(status, spec, **metadata))
    assert (shown["Ready"], shown["Status"], shown["Restarts"]) == expected
    assert shown["Age"] == "5m"


def test_the_last_restart_is_dated() -> None:
    container = state("running", True, 3)
    container["lastState"] = {"terminated": {"finishedAt": ago(minutes=2)}}
    assert cells("/pods", pod({**RUNNING, "containerStatuses": [container]}))["Restarts"] == "3 (2m ago)"


SERVICES: list[Any] = [
    pytest.param(
        {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
        {},
        ("ClusterIP", "10.96.0.9", "<none>", "80/TCP,53/UDP"),
        id="ClusterIP",
    ),
    pytest.param(
        {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]},
        {},
        ("NodePort", "10.96.0.9", "<none>", "80:30080/TCP"),
        id="NodePort",
    ),
    pytest.param(
        {"type": "LoadBalancer", "clusterIP": "10.96.0.9"},
        {},
        ("LoadBalancer", "10.96.0.9", "<pending>", "<none>"),
        id="pending",
    ),
    pytest.param(
        {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "externalIPs": ["1.1.1.1"]},
        {"loadBalancer": {"ingress": [{"ip": "10.89.200.1"}]}},
        ("LoadBalancer", "10.96.0.9", "10.89.200.1,1.1.1.1", "<none>"),
        id="LoadBalancer",
    ),
    pytest.param(
        {"type": "ExternalName", "externalName": "db.example"},
        {},
        ("ExternalName", "<none>", "db.example", "<none>"),
        id="name",
    ),
]


@pytest.mark.parametrize(("spec", "status", "expected"), SERVICES)
def test_services(spec: Any, status: Any, expected: tuple[str, str, str, str]) -> None:
    shown = cells("/services", {"metadata": {"name": "s"}, "spec": spec, "status": status})
    assert (shown["Type"], shown["Cluster-IP"], shown["External-IP"], shown["Port(s)"]) == expected


def test_nodes() -> None:
    node = {
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.89.0.11"}],
        },
    }
    shown = cells("/nodes", node, wide=True)
    assert (shown["Status"], shown["Roles"], shown["Internal-IP"], shown["Age"]) == (
        "Ready,SchedulingDisabled",
        "control-plane",
        "10.89.0.11",
        "<unknown>",
    )


def test_many_endpoints_are_counted_rather_than_listed() -> None:
    endpoints = [{"addresses": [f"10.0.0.{n}"]} for n in range(5)]
    document = {"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints}
    shown = cells("discovery.k8s.io/endpointslices", document)
    assert shown["Endpoints"] == "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "spec", "type"]), inner),
    max_leaves=10,
)


@settings(max_examples=30)
@given(spec=json_values, status=json_values)
def test_no_object_breaks_a_table(spec: Any, status: Any) -> None:
    document = {"metadata": {"name": "x"}, "spec": spec, "status": status}
    for resource in BUILTIN:
        for column in columns_of(resource):
            assert isinstance(column.cell(document, NOW), (str, int, type(None)))


@pytest.mark.parametrize(
    ("api_version", "text"), [("apps/v1", "daemonset.apps/web"), ("v1", "daemonset/web")], ids=["of a group", "of core"]
)
def test_a_revision_names_its_owner_with_its_group(api_version: str, text: str) -> None:
    others = {"apiVersion": "v1", "kind": "Pod", "name": "not-me"}
    owner = {"apiVersion": api_version, "kind": "DaemonSet", "name": "web", "controller": True}
    document = {"metadata": {"name": "r", "ownerReferences": [others, owner]}, "revision": 3}
    found = cells("apps/controllerrevisions", document)
    assert (found["Controller"], found["Revision"]) == (text, 3)
    assert cells("apps/controllerrevisions", {"metadata": {"name": "r"}, "revision": 3})["Controller"] == "<none>"


def test_a_requested_duration_prints_as_one() -> None:
    path = "certificates.k8s.io/certificatesigningrequests"
    assert cells(path, {"metadata": {}, "spec": {"expirationSeconds": 86_400}})["RequestedDuration"] == "24h"
    assert cells(path, {"metadata": {}, "spec": {}})["RequestedDuration"] == "<none>"
