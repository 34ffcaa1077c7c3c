"""What the server owns of an object, and what may not change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.apiserver.strategy import check_update, prepare_create, prepare_update
from pilotage.apiserver.strategy.pod import quality


def resource(kind: str) -> Resource:
    return next(r for r in BUILTIN if r.kind == kind)


def made(kind: str, spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "default", "uid": "u", **fields.pop("metadata", {})}
    document = {"kind": kind, "metadata": metadata, **fields}
    if spec is not None:
        document["spec"] = spec
    return document


def updated(kind: str, old: dict[str, Any], new: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    before = copy.deepcopy(old)
    result = prepare_update(resource(kind), old, copy.deepcopy(new), subresource)
    assert old == before, "the stored document was modified"
    return result


def refused(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [f"{error.field}: {error.message}" for error in check_update(resource(kind), old, new)]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("Pod", {"phase": "Pending", "qosClass": "BestEffort"}),
        ("Service", {"loadBalancer": {}}),
        ("Deployment", {}),
        ("ReplicaSet", {"replicas": 0}),
        ("Namespace", {"phase": "Active"}),
    ],
)
def test_a_client_cannot_create_a_status(kind: str, status: dict[str, Any]) -> None:
    document = made(kind, {}, status={"phase": "Running", "replicas": 9})
    prepare_create(resource(kind), document)
    assert document["status"] == status


def test_a_node_registers_with_its_status() -> None:
    document = made("Node", {}, status={"capacity": {"cpu": "2"}})
    prepare_create(resource("Node"), document)
    assert document["status"] == {"capacity": {"cpu": "2"}}


def test_generation_counts_wishes_and_nothing_else() -> None:
    live = made("Deployment", {"replicas": 1})
    prepare_create(resource("Deployment"), live)
    assert live["metadata"]["generation"] == 1
    wish = updated("Deployment", live, {**live, "spec": {"replicas": 2}})
    assert wish["metadata"]["generation"] == 2
    labelled = copy.deepcopy(live)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert updated("Deployment", live, labelled)["metadata"]["generation"] == 1
    report = updated("Deployment", live, {**live, "status": {"replicas": 1}}, "status")
    assert report["metadata"]["generation"] == 1
    config = made("ConfigMap", metadata={"generation": 7})
    prepare_create(resource("ConfigMap"), config)
    assert "generation" not in config["metadata"]


def test_status_and_wishes_change_through_their_own_doors() -> None:
    live = made("Deployment", {"replicas": 1}, status={"replicas": 1})
    both = {**live, "spec": {"replicas": 5}, "status": {"replicas": 5}}
    assert updated("Deployment", live, both)["status"] == {"replicas": 1}
    through_status = updated("Deployment", live, both, "status")
    assert through_status["spec"] == {"replicas": 1} and through_status["status"] == {"replicas": 5}


def test_a_namespaces_finalizers_change_through_finalize_only() -> None:
    live = made("Namespace", {"finalizers": ["kubernetes"]}, status={"phase": "Terminating"})
    emptied = {**live, "spec": {"finalizers": []}}
    assert updated("Namespace", live, emptied)["spec"] == {"finalizers": ["kubernetes"]}
    assert updated("Namespace", live, emptied, "finalize")["spec"] == {}


def test_string_data_is_folded_into_data() -> None:
    secret = made("Secret", data={"a": "eA=="}, stringData={"b": "y", "a": "z"})
    prepare_create(resource("Secret"), secret)
    assert secret["data"] == {"a": "eg==", "b": "eQ=="} and "stringData" not in secret


def test_a_job_finds_its_pods_by_its_uid() -> None:
    job = made("Job", {"template": {"spec": {}}})
    prepare_create(resource("Job"), job)
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == "x" and labels["controller-uid"] == "u"


def container(**resources: dict[str, str]) -> dict[str, Any]:
    return {"name": "c", "image": "i", "resources": resources}


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([container()], "BestEffort"),
        ([container(limits=FULL, requests=FULL)], "Guaranteed"),
        ([container(limits=FULL)], "Guaranteed"),
        ([container(limits=FULL), container()], "Burstable"),
        ([container(requests={"cpu": "1"})], "Burstable"),
        ([container(limits=FULL, requests={"cpu": "1000m", "memory": "1024Mi"})], "Guaranteed"),
    ],
)
def test_quality_of_service(containers: list[dict[str, Any]], expected: str) -> None:
    assert quality({"containers": containers}) == expected


def test_the_class_of_a_pod_that_speaks_for_itself() -> None:
    both = {"cpu": "1", "memory": "1Gi"}
    containers = [{"resources": {"requests": {"cpu": "1m"}}}, {}]
    assert quality({"containers": containers, "resources": {"requests": both, "limits": both}}) == "Guaranteed"
    assert quality({"containers": [{}], "resources": {"limits": {"memory": "1Gi"}}}) == "Burstable"


def service(**spec: Any) -> dict[str, Any]:
    return made("Service", spec, status={"loadBalancer": {}})


ALLOCATED = {"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ipFamilies": ["IPv4"]}


def test_a_service_keeps_what_was_allocated_when_the_client_does_not_mention_it() -> None:
    live = service(type="NodePort", ports=[{"port": 80, "protocol": "TCP", "nodePort": 30080}], **ALLOCATED)
    after = updated("Service", live, service(type="NodePort", ports=[{"port": 80}, {"port": 81}]))["spec"]
    assert after["clusterIP"] == "10.96.1.1" and after["clusterIPs"] == ["10.96.1.1"]
    assert after["ports"] == [{"port": 80, "nodePort": 30080}, {"port": 81}]


def test_a_service_lets_go_of_what_its_new_type_has_no_use_for() -> None:
    live = service(
        type="LoadBalancer",
        ports=[{"port": 80, "nodePort": 30080}],
        externalTrafficPolicy="Cluster",
        allocateLoadBalancerNodePorts=True,
        **ALLOCATED,
    )
    live["status"] = {"loadBalancer": {"ingress": [{"ip": "10.89.200.1"}]}}
    plain = updated("Service", live, {**live, "spec": {**live["spec"], "type": "ClusterIP"}})
    assert plain["spec"] == {"type": "ClusterIP", "ports": [{"port": 80}], **ALLOCATED}
    assert plain["status"] == {"loadBalancer": {}}
    named = updated(
        "Service", live, {**live, "spec": {**live["spec"], "type": "ExternalName", "externalName": "x.org"}}
    )
    assert named["spec"] == {"type": "ExternalName", "externalName": "x.org", "ports": [{"port": 80}]}


def pod(**spec: Any) -> dict[str, Any]:
    return made("Pod", {"containers": [{"name": "c", "image": "a:1"}], "nodeName": "n1", **spec}, status={})


def test_what_may_change_of_a_pod() -> None:
    live = pod(tolerations=[{"key": "a"}], activeDeadlineSeconds=10)
    fine = pod(tolerations=[{"key": "a"}, {"key": "b"}], activeDeadlineSeconds=5)
    fine["spec"]["containers"][0]["image"] = "a:2"
    assert refused("Pod", live, fine) == []


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"nodeName": "n2"}, "spec: Forbidden: pod updates may not change fields other than"),
        ({"containers": []}, "spec.containers: Forbidden: pod updates may not add or remove containers"),
        ({"tolerations": []}, "spec.tolerations: Forbidden: existing toleration can not be modified"),
        ({"activeDeadlineSeconds": None}, "spec.activeDeadlineSeconds: Invalid value: null"),
    ],
)
def test_what_may_not_change_of_a_pod(change: dict[str, Any], start: str) -> None:
    live = pod(tolerations=[{"key": "a"}], activeDeadlineSeconds=10)
    wanted = copy.deepcopy(live)
    wanted["spec"] |= change
    (message,) = refused("Pod", live, wanted)
    assert message.startswith(start)


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        pytest.param(
            "Deployment",
            {"spec": {"selector": {"matchLabels": {"a": "1"}}}},
            {"spec": {"selector": {"matchLabels": {"a": "2"}}}},
            ['spec.selector: Invalid value: {"matchLabels":{"a":"2"}}: field is immutable'],
            id="the selector of a deployment",
        ),
        pytest.param(
            "Service",
            {"spec": {**ALLOCATED}},
            {"spec": {**ALLOCATED, "clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2"]}},
            ['spec.clusterIPs[0]: Invalid value: "10.96.1.2": may not change once set'],
            id="the address of a service",
        ),
        pytest.param(
            "ConfigMap",
            {"immutable": True, "data": {"a": "1"}},
            {"immutable": True, "data": {"a": "2"}},
            ["data: Forbidden: field is immutable when `immutable` is set"],
            id="a sealed config map",
        ),
        pytest.param(
            "Secret",
            {"type": "Opaque"},
            {"type": "kubernetes.io/tls"},
            ['type: Invalid value: "kubernetes.io/tls": field is immutable'],
            id="the type of a secret",
        ),
        pytest.param(
            "StatefulSet",
            {"spec": {"serviceName": "a", "replicas": 1}},
            {"spec": {"serviceName": "b", "replicas": 2}},
            [
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', "
                "'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                "'minReadySeconds' are forbidden"
            ],
            id="a stateful set's identity",
        ),
        pytest.param(
            "RoleBinding",
            {"roleRef": {"name": "a"}},
            {"roleRef": {"name": "b"}},
            ['roleRef: Invalid value: {"name":"b"}: cannot change roleRef'],
            id="the role of a binding",
        ),
        pytest.param(
            "Node",
            {"spec": {"podCIDRs": ["10.244.1.0/24"]}},
            {"spec": {"podCIDRs": ["10.244.2.0/24"]}},
            ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
            id="the pod range of a node",
        ),
        pytest.param(
            "Pod",
            {"metadata": {"deletionTimestamp": "t"}, "spec": {}},
            {"metadata": {"deletionTimestamp": "t", "finalizers": ["a/b"]}, "spec": {}},
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
                'found new finalizers []string{"a/b"}'
            ],
            id="finalizers of a dying object",
        ),
    ],
)
def test_what_may_not_change(kind: str, old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert refused(kind, made(kind, **copy.deepcopy(old)), made(kind, **copy.deepcopy(new))) == expected


@pytest.mark.parametrize(
    ("before", "after", "wrong"),
    [
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "2"}}, ""),
        ({"requests": {"cpu": "1"}}, {}, "Pod QOS Class may not change"),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1", "x.io/y": "1"}}, "only cpu and memory"),
        ({"requests": {"cpu": "1", "memory": "1Gi"}}, {"requests": {"cpu": "1"}}, "cannot be removed"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}, {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}, ""),
    ],
)
def test_a_resize_keeps_the_quality_of_service(before: Any, after: Any, wrong: str) -> None:
    found = resized({"containers": [{"name": "c", "resources": before}]}, {"containers": [{"resources": after}]})
    assert any(wrong in message for message in found) if wrong else not found


def resized(before: dict[str, Any], after: dict[str, Any], **metadata: Any) -> list[str]:
    pods = next(r for r in BUILTIN if r.kind == "Pod")
    old, new = ({"metadata": {"name": "p", **metadata}, "spec": spec} for spec in (before, after))
    return [f"{error.field}: {error.message}" for error in check_update(pods, old, new, "resize")]


WHOLE = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(WHOLE, {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}, [], id="it grows"),
        pytest.param(WHOLE, {**WHOLE, "requests": {"cpu": "1", "memory": "1Gi"}}, [], id="it asks for more kinds"),
        pytest.param(
            {}, WHOLE, ['spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'],
            id="it comes into being and is of another class then",
        ),
        pytest.param(WHOLE, {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}, [], id="as burstable as before"),
        pytest.param(
            WHOLE, {"requests": {"cpu": "1"}},
            ["spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"], id="a limit goes",
        ),
        pytest.param(
            WHOLE, {**WHOLE, "requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}},
            ["spec: Forbidden: only cpu and memory resources are mutable at pod-level"], id="huge pages",
        ),
    ],
)  # fmt: skip
def test_what_a_pod_asks_for_as_a_whole_may_be_resized(before: Any, after: Any, expected: list[str]) -> None:
    one = [{"name": "c"}]
    assert resized({"containers": one, "resources": before}, {"containers": one, "resources": after}) == expected


def test_what_a_pod_asks_for_as_a_whole_cannot_be_taken_back() -> None:
    asking = [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]
    found = resized({"containers": asking, "resources": WHOLE}, {"containers": asking})
    assert found == ["spec.resources: Forbidden: pod-level resources cannot be removed"]


def test_what_shows_a_static_pod_and_init_containers_that_run_once_are_not_resized() -> None:
    one = {"containers": [{"name": "c"}], "resources": WHOLE}
    mirrored = {"kubernetes.io/config.mirror": "x"}
    assert resized(one, one, annotations=mirrored) == [": Forbidden: static pods cannot be resized"]
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    init = {"name": "i", "resizePolicy": policy, "resources": {"requests": {"cpu": "1"}}}
    grown = {**init, "resources": {"requests": {"cpu": "2"}}}
    found = resized({**one, "initContainers": [init]}, {**one, "initContainers": [grown]})
    assert found == [
        "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer "
        "cannot be resized"
    ]
    sidecar = {"restartPolicy": "Always"}
    assert not resized({**one, "initContainers": [init | sidecar]}, {**one, "initContainers": [grown | sidecar]})
