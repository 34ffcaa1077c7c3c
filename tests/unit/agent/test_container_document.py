"""The OCI document, images' names, quality of service."""

import pytest

from pilotage.agent.core import image_name, oci, qos
from pilotage.agent.core.image_name import HOST_IMAGE, InvalidImageNameError, Pull
from pilotage.api.core_v1 import Pod

from .builders import make_pod

GI = 1 << 30


def bundle(**changes: object) -> oci.Bundle:
    values: dict[str, object] = {
        "rootfs": "/root",
        "args": ("run",),
        "environment": {"A": "1"},
        "working_directory": "",
        "user": oci.User(),
        "hostname": "p",
        "mounts": (),
        "namespaces": {"mount": "", "pid": "", "network": "/ns/net", "ipc": "/ns/ipc", "uts": "/ns/uts"},
        "cgroup_path": "/pilotage/x/u1/c1",
        "memory_bytes": 8 * GI,
    }
    return oci.Bundle(**(values | changes))  # type: ignore[arg-type]


def document(pod: Pod, **changes: object) -> dict[str, object]:
    return oci.document(pod, pod.spec.containers[0], bundle(**changes))


def test_an_ordinary_container() -> None:
    found = document(make_pod("a"))
    process = found["process"]
    assert process["args"] == ["run"]
    assert process["env"] == ["A=1"]
    assert process["cwd"] == "/"
    assert process["noNewPrivileges"] is False
    assert process["oomScoreAdj"] == 1000
    assert "CAP_NET_BIND_SERVICE" in process["capabilities"]["effective"]
    assert "CAP_SYS_ADMIN" not in process["capabilities"]["bounding"]
    linux = found["linux"]
    assert {"type": "network", "path": "/ns/net"} in linux["namespaces"]
    assert {"type": "pid"} in linux["namespaces"]
    assert linux["cgroupsPath"] == "/pilotage/x/u1/c1"
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert "hostname" not in found
    assert not any(mount["type"].startswith("cgroup") for mount in found["mounts"])


def test_resources_become_shares_quota_and_limits() -> None:
    resources = {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    linux = document(make_pod({"name": "a", "resources": resources}))["linux"]
    assert linux["resources"]["cpu"] == {"shares": 256, "quota": 150_000, "period": 100_000}
    assert linux["resources"]["memory"] == {"limit": 64 << 20}
    assert linux["resources"]["pids"]["limit"] > 0


def test_without_control_groups_there_are_no_limits() -> None:
    linux = document(make_pod("a"), cgroup_path="")["linux"]
    assert "resources" not in linux
    assert "cgroupsPath" not in linux


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        ((), (), "CAP_CHOWN", "CAP_NET_ADMIN"),
        (("NET_ADMIN",), (), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        (("CAP_NET_ADMIN",), ("CHOWN",), "CAP_NET_ADMIN", "CAP_CHOWN"),
        (("NET_ADMIN",), ("ALL",), "CAP_NET_ADMIN", "CAP_CHOWN"),
        (("ALL",), ("SYS_ADMIN",), "CAP_SYS_TIME", "CAP_SYS_ADMIN"),
        (("NO_SUCH",), (), "CAP_CHOWN", "CAP_NO_SUCH"),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], has: str, lacks: str) -> None:
    pod = make_pod({"name": "a", "securityContext": {"capabilities": {"add": list(add), "drop": list(drop)}}})
    found = oci.capabilities_of(pod.spec.containers[0])
    assert has in found
    assert lacks not in found


def test_security_context_reaches_the_document() -> None:
    context = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
    found = document(make_pod({"name": "a", "securityContext": context}), user=oci.User(uid=1000, gid=7))
    assert found["root"] == {"path": "/root", "readonly": True}
    assert found["process"]["noNewPrivileges"] is True
    assert found["process"]["user"] == {"uid": 1000, "gid": 7, "additionalGids": []}
    assert found["process"]["capabilities"]["effective"] == []
    assert "CAP_CHOWN" in found["process"]["capabilities"]["bounding"]


def test_privileged_containers_see_everything_but_the_clusters_files() -> None:
    pod = make_pod({"name": "a", "securityContext": {"privileged": True}})
    linux = document(pod, hidden_paths=("/var/lib/pilotage",))["linux"]
    assert linux["maskedPaths"] == ["/var/lib/pilotage"]
    assert linux["readonlyPaths"] == []


def test_a_pod_on_the_hosts_network_sees_the_hosts_sysfs() -> None:
    pod = make_pod("a", hostNetwork=True)
    found = document(pod, namespaces={"mount": "", "pid": ""})
    sysfs = next(mount for mount in found["mounts"] if mount["destination"] == "/sys")
    assert sysfs["source"] == "/sys"
    assert "ro" in sysfs["options"]


@pytest.mark.parametrize(
    ("limits", "requests", "expected", "score"),
    [
        ({}, {}, "BestEffort", 1000),
        ({"cpu": "1", "memory": "1Gi"}, {}, "Guaranteed", -997),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed", -997),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "500m"}, "Burstable", 1000 - 0),
        ({"memory": "1Gi"}, {"memory": "1Gi"}, "Burstable", 875),
        ({}, {"memory": "8Gi"}, "Burstable", 3),
        ({}, {"cpu": "10m"}, "Burstable", 999),
    ],
)
def test_quality_of_service(limits: dict[str, str], requests: dict[str, str], expected: str, score: int) -> None:
    pod = make_pod({"name": "a", "resources": {"limits": limits, "requests": requests}})
    assert qos.qos_class(pod) == expected
    found = qos.oom_score_adjust(pod, pod.spec.containers[0], 8 * GI)
    assert found == (999 if score == 1000 and expected == "Burstable" else score)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/host", "localhost/host:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("ghcr.io/o/i@sha256:" + "a" * 64, "ghcr.io/o/i@sha256:" + "a" * 64),
        ("ghcr.io/o/i:t@sha256:" + "a" * 64, "ghcr.io/o/i@sha256:" + "a" * 64),
    ],
)
def test_image_names(text: str, full: str) -> None:
    assert str(image_name.parse(text)) == full


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "x:", "x@", "a//b", "x:!", "-x", "x@sha256:12", "a" * 300])
def test_bad_image_names(text: str) -> None:
    with pytest.raises(InvalidImageNameError):
        image_name.parse(text)


@pytest.mark.parametrize(
    ("name", "policy", "present", "what"),
    [
        (HOST_IMAGE, "Never", False, Pull.USE),
        ("r.example/a:1", "Never", False, Pull.REFUSE),
        ("r.example/a:1", "Never", True, Pull.USE),
        ("r.example/a:1", "IfNotPresent", False, Pull.FETCH),
        ("r.example/a:1", "IfNotPresent", True, Pull.USE),
        ("r.example/a:1", "Always", True, Pull.FETCH),
        ("r.example/a", "", True, Pull.FETCH),
        ("r.example/a:1", "", True, Pull.USE),
        ("localhost/mine", "Always", True, Pull.USE),
    ],
)
def test_pull_policy(name: str, policy: str, present: bool, what: Pull) -> None:
    assert image_name.decide(image_name.parse(name), policy, present=present) is what
