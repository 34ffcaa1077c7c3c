"""What Kubernetes fills in."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.api.schema_defaults import default


def resource(kind: str) -> Resource:
    return next(r for r in BUILTIN if r.kind == kind)


def defaulted(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    document = {"kind": kind, "metadata": {"name": "web"}, "spec": copy.deepcopy(spec)}
    default(resource(kind), document)
    once = copy.deepcopy(document)
    default(resource(kind), document)
    assert document == once, "defaulting twice is defaulting once"
    return document["spec"]


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "c", "image": "app:1", **fields}


def test_a_pod() -> None:
    spec = defaulted("Pod", {"containers": [container(ports=[{"containerPort": 80}])]})
    assert spec == {
        "containers": [
            {
                "name": "c",
                "image": "app:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("app", "Always"),
        ("app:latest", "Always"),
        ("app:1", "IfNotPresent"),
        ("host:5000/app", "Always"),
        ("host:5000/app:1", "IfNotPresent"),
        ("app@sha256:00", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert defaulted("Pod", {"containers": [container(image=image)]})["containers"][0]["imagePullPolicy"] == policy


def test_requests_follow_limits_in_pods_but_not_in_templates() -> None:
    limited = container(resources={"limits": {"cpu": "1"}})
    assert defaulted("Pod", {"containers": [limited]})["containers"][0]["resources"]["requests"] == {"cpu": "1"}
    template = defaulted("Deployment", {"template": {"spec": {"containers": [limited]}}})["template"]
    assert "requests" not in template["spec"]["containers"][0]["resources"]


def test_the_requests_of_a_pod_as_a_whole_are_its_containers_else_its_limits() -> None:
    asking = [container(resources={"requests": {"memory": "64Mi"}}) for _ in range(2)]
    spec = {"containers": asking, "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}
    made = defaulted("Pod", spec)["resources"]
    assert made["requests"] == {"cpu": "2", "memory": "128Mi"}
    assert "requests" not in defaulted("Deployment", {"template": {"spec": spec}})["template"]["spec"]["resources"]
    assert "resources" not in defaulted("Pod", {"containers": asking})


def test_probes() -> None:
    probed = container(readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 2})
    probe = defaulted("Pod", {"containers": [probed]})["containers"][0]["readinessProbe"]
    assert probe == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def test_volumes() -> None:
    volumes = [{"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c", "hostPath": {"path": "/x"}}]
    assert defaulted("Pod", {"containers": [], "volumes": volumes})["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
        {"name": "c", "hostPath": {"path": "/x", "type": ""}},
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            {"ports": [{"port": 80}]},
            {
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
            },
            id="the plain one",
        ),
        pytest.param(
            {"type": "LoadBalancer"},
            {
                "type": "LoadBalancer",
                "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": True,
            },
            id="a load balancer",
        ),
        pytest.param(
            {"type": "ExternalName", "externalName": "x.org"},
            {"type": "ExternalName", "externalName": "x.org", "sessionAffinity": "None"},
            id="an external name",
        ),
    ],
)
def test_services(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert defaulted("Service", given) == expected


def test_affinity_has_a_timeout() -> None:
    spec = defaulted("Service", {"sessionAffinity": "ClientIP"})
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Deployment", {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}),
        ("ReplicaSet", {"replicas": 1}),
        ("StatefulSet", {"replicas": 1, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10}),
        ("Job", {"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed"}),
    ],
)
def test_workloads(kind: str, expected: dict[str, Any]) -> None:
    spec = defaulted(kind, {"template": {"spec": {"containers": [container()]}}})
    assert expected.items() <= spec.items()
    assert spec["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert "enableServiceLinks" not in spec["template"]["spec"]


def test_every_defaulter_survives_an_empty_object() -> None:
    for kind in BUILTIN:
        document: dict[str, Any] = {"kind": kind.kind, "metadata": {"name": "x"}}
        default(kind, document)
