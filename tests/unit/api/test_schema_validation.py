"""What is refused, where, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.api.catalogue import BUILTIN, Resource
from pilotage.api.schema_conform import conform
from pilotage.api.schema_defaults import default
from pilotage.api.schema_validation import validate


def resource(kind: str) -> Resource:
    return next(r for r in BUILTIN if r.kind == kind)


def verdict(kind: str, **fields: Any) -> list[str]:
    which = resource(kind)
    metadata = {"name": "web", **({"namespace": "default"} if which.namespaced else {}), **fields.pop("metadata", {})}
    document = conform(which, {"apiVersion": which.api_version, "kind": kind, "metadata": metadata, **fields}).document
    default(which, document)
    return [f"{error.field}: {error.message}" for error in validate(which, document)]


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "c", "image": "app", **fields}


def pod(**spec: Any) -> list[str]:
    return verdict("Pod", spec={"containers": [container()], **spec})


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name' or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, [], id="a good pod"),
        pytest.param({"containers": []}, ["spec.containers: Required value"], id="no container"),
        pytest.param(
            {"containers": [{"name": "c"}]}, ["spec.containers[0].image: Required value"], id="container without image"
        ),
        pytest.param(
            {"containers": [container(name="C")]},
            [f'spec.containers[0].name: Invalid value: "C": {LABEL}'],
            id="container name",
        ),
        pytest.param(
            {"containers": [container(), container()]},
            ['spec.containers[1].name: Duplicate value: "c"'],
            id="two containers of one name",
        ),
        pytest.param(
            {"restartPolicy": "Sometimes"},
            ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'],
            id="restart policy",
        ),
        pytest.param(
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x"}])]},
            ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
            id="mount of no volume",
        ),
        pytest.param(
            {"containers": [container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})]},
            ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
            id="request above limit",
        ),
        pytest.param(
            {"resources": {"requests": {"cpu": "1", "x.io/y": "1"}}},
            [
                'spec.resources.requests[x.io/y]: Unsupported value: "x.io/y": supported values: "cpu", "memory", '
                '"hugepages-"'
            ],
            id="a pod as a whole asks for a device",
        ),
        pytest.param(
            {
                "containers": [container(resources={"requests": {"memory": "2Gi"}, "limits": {"cpu": "3"}})],
                "resources": {"requests": {"memory": "1Gi"}, "limits": {"cpu": "2"}},
            },
            [
                'spec.resources.requests: Invalid value: "3": must be less than or equal to cpu limit of 2',
                'spec.resources.requests[memory]: Invalid value: "1Gi": '
                "must be greater than or equal to aggregate container requests of 2Gi",
                'spec.containers[0].resources.limits: Invalid value: "3": '
                "must be less than or equal to pod limits of 2",
            ],
            id="containers that ask for more than the pod as a whole",
        ),
        pytest.param(
            {"hostUsers": False, "hostNetwork": True, "hostPID": True, "hostIPC": True},
            [f"spec.{field}: Forbidden: when `hostUsers` is false" for field in ("hostNetwork", "hostPID", "hostIPC")],
            id="users of its own in namespaces of the node",
        ),
        pytest.param({"hostUsers": True, "hostNetwork": True}, [], id="the node's users in the node's network"),
        pytest.param(
            {
                "containers": [container(securityContext={"appArmorProfile": {"type": "Localhost"}})],
                "securityContext": {"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}},
            },
            [
                'spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": '
                "can only be set when AppArmor type is Localhost",
                "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Required value: "
                "must be set when AppArmor type is Localhost",
            ],
            id="AppArmor profiles by name",
        ),
        pytest.param(
            {"containers": [container(livenessProbe={"periodSeconds": 1})]},
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            id="probe without handler",
        ),
        pytest.param(
            {"containers": [container(ports=[{"containerPort": 70000}])]},
            ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
            id="port out of range",
        ),
        pytest.param(
            {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]},
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            id="a volume of two kinds",
        ),
        pytest.param(
            {"dnsPolicy": "None"},
            [
                "spec.dnsConfig.nameservers: Required value: "
                "must provide at least one DNS nameserver when `dnsPolicy` is None"
            ],
            id="no resolver at all",
        ),
        pytest.param(
            {"terminationGracePeriodSeconds": -1},
            ["spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"],
            id="negative grace",
        ),
    ],
)
def test_pods(spec: dict[str, Any], expected: list[str]) -> None:
    assert pod(**spec) == expected


PORT = {"port": 80}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"ports": [PORT]}, [], id="a good service"),
        pytest.param({"clusterIP": "None"}, [], id="headless without ports"),
        pytest.param({"type": "ExternalName", "externalName": "legacy.example.org"}, [], id="external name"),
        pytest.param({}, ["spec.ports: Required value"], id="no ports"),
        pytest.param(
            {"ports": [PORT, {"port": 81}]},
            ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
            id="several ports without names",
        ),
        pytest.param({"type": "ExternalName"}, ["spec.externalName: Required value"], id="external name missing"),
        pytest.param(
            {"ports": [{"port": 80, "nodePort": 30000}]},
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            id="node port of a cluster service",
        ),
        pytest.param(
            {"ports": [PORT], "externalTrafficPolicy": "Local"},
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
            id="external policy without outside",
        ),
        pytest.param(
            {"ports": [PORT], "externalIPs": ["127.0.0.1"]},
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": '
                "may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ],
            id="loopback as external address",
        ),
        pytest.param(
            {"ports": [PORT], "type": "Tunnel"},
            [
                'spec.type: Unsupported value: "Tunnel": supported values: '
                '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'
            ],
            id="unknown type",
        ),
    ],
)
def test_services(spec: dict[str, Any], expected: list[str]) -> None:
    assert verdict("Service", spec=spec) == expected


def test_a_service_name_starts_with_a_letter() -> None:
    (error,) = verdict("Service", metadata={"name": "1st"}, spec={"ports": [PORT]})
    assert error.startswith('metadata.name: Invalid value: "1st": a DNS-1035 label must consist of')


def deployment(**spec: Any) -> list[str]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}}
    return verdict("Deployment", spec={"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, [], id="a good deployment"),
        pytest.param(
            {"selector": {"matchLabels": {"app": "api"}}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"web"}: '
                "`selector` does not match template `labels`"
            ],
            id="selector does not match",
        ),
        pytest.param(
            {"selector": {}},
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            id="empty selector",
        ),
        pytest.param({"selector": None}, ["spec.selector: Required value"], id="no selector"),
        pytest.param(
            {"replicas": -1},
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            id="negative replicas",
        ),
        pytest.param(
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            id="a rollout that cannot move",
        ),
    ],
)
def test_deployments(spec: dict[str, Any], expected: list[str]) -> None:
    assert deployment(**spec) == expected


def ingress(**spec: Any) -> list[str]:
    return verdict("Ingress", spec=spec)


BACKEND = {"service": {"name": "web", "port": {"number": 80}}}


def path(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND, **fields}]}}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(path(), [], id="a good ingress"),
        pytest.param({"defaultBackend": BACKEND}, [], id="only a default"),
        pytest.param(
            path(path="web"),
            ['spec.rules[0].http.paths[0].path: Invalid value: "web": must be an absolute path'],
            id="relative path",
        ),
        pytest.param(
            path(backend={"service": {"name": "web"}}),
            ["spec.rules[0].http.paths[0].backend.service.port: Required value: port name or number is required"],
            id="backend without port",
        ),
        pytest.param(
            {"defaultBackend": BACKEND, "rules": [{"host": "10.0.0.1"}]},
            ['spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address'],
            id="an address as host",
        ),
    ],
)
def test_ingresses(spec: dict[str, Any], expected: list[str]) -> None:
    assert ingress(**spec) == expected


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        pytest.param("ConfigMap", {"data": {"a/b": "x"}}, "data[a/b]: Invalid value", id="config key"),
        pytest.param("Secret", {"type": "kubernetes.io/tls"}, "data[tls.crt]: Required value", id="tls without cert"),
        pytest.param(
            "ConfigMap", {"metadata": {"labels": {"a": "b c"}}}, 'metadata.labels: Invalid value: "b c"', id="label"
        ),
        pytest.param(
            "ConfigMap",
            {"metadata": {"annotations": {"big": "x" * 300_000}}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
            id="annotations too large",
        ),
        pytest.param("Role", {"rules": [{"verbs": ["get"]}]}, "rules[0].apiGroups: Required value", id="role"),
        pytest.param(
            "EndpointSlice",
            {"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]},
            'endpoints[0].addresses[0]: Invalid value: "::1": must be an IPv4 address',
            id="address family",
        ),
        pytest.param("Namespace", {"metadata": {"name": "a.b"}}, "metadata.name: Invalid value", id="namespace name"),
        pytest.param("CronJob", {"spec": {"schedule": "* *"}}, "spec.schedule: Invalid value", id="cron schedule"),
        pytest.param("PersistentVolume", {"spec": {}}, "spec.capacity: Required value", id="volume without a size"),
        pytest.param(
            "PersistentVolume",
            {"spec": {"hostPath": {"path": "/a/../b"}}},
            "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            id="volume outside its path",
        ),
        pytest.param(
            "PersistentVolume",
            {"spec": {"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/"}}},
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
            id="volume in two places",
        ),
        pytest.param("StorageClass", {}, "provisioner: Required value", id="class without a provisioner"),
        pytest.param("RuntimeClass", {"handler": "A_b"}, 'handler: Invalid value: "A_b"', id="handler"),
        pytest.param(
            "Event",
            {"involvedObject": {"namespace": "other"}},
            'involvedObject.namespace: Invalid value: "other": does not match event.namespace',
            id="event elsewhere",
        ),
        pytest.param("ServiceCIDR", {"spec": {"cidrs": ["10.0.0.1/8"]}}, "spec.cidrs[0]: Invalid value", id="range"),
        pytest.param(
            "IPAddress", {"metadata": {"name": "10.0.0.01"}}, "metadata.name: Invalid value", id="address not canonical"
        ),
        pytest.param(
            "Job",
            {"metadata": {"uid": "u"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}},
            'spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` not auto-generated',
            id="a job's own selector",
        ),
        pytest.param(
            "Job",
            {"spec": {"completionMode": "Indexed", "completions": 1, "parallelism": 100_001}},
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000",
            id="too many indexes at once",
        ),
    ],
)
def test_other_kinds(kind: str, fields: dict[str, Any], expected: str) -> None:
    assert any(error.startswith(expected) for error in verdict(kind, **fields)), verdict(kind, **fields)


def test_rules_survive_objects_that_hold_nothing() -> None:
    for kind in BUILTIN:
        document: dict[str, Any] = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}
        default(kind, document)
        assert any(error.field == "metadata.name" for error in validate(kind, document))
