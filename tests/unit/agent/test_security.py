"""Who a container runs as, and what of the kernel it may reach."""

from pathlib import Path
from typing import Any

import pytest

from pilotage.agent import users
from pilotage.agent.core import oci, seccomp
from pilotage.agent.errors import StartRefused
from pilotage.agent.images import Image

from .builders import make_pod
from .test_container_document import bundle

WHERE = '(pod: "p_ns(u1)", container: a)'


@pytest.fixture
def image(tmp_path: Path) -> Image:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/false\nbad line\n")
    (etc / "group").write_text("root:x:0:\nweb:x:33:\nlogs:x:44:web,root\nbad line\n")
    return Image(name="i", digest="sha256:1", size_bytes=0, lower=tmp_path)


def resolve(image: Image, own: dict[str, Any], pods: dict[str, Any], user: str = "") -> oci.User:
    import dataclasses

    pod = make_pod({"name": "a", "securityContext": own}, securityContext=pods)
    return users.resolve(pod, pod.spec.containers[0], dataclasses.replace(image, user=user))


@pytest.mark.parametrize(
    ("own", "pods", "user", "expected"),
    [
        pytest.param({}, {}, "", (0, 0, (0, 44)), id="root, with the groups that the image gives root"),
        pytest.param({}, {}, "web", (33, 33, (33, 44)), id="the image's user by name"),
        pytest.param({}, {}, "33:0", (33, 0, (0, 44)), id="the image's user and group by number"),
        pytest.param({"runAsUser": 33}, {}, "", (33, 33, (33, 44)), id="the container's user, its group by the image"),
        pytest.param({"runAsUser": 7}, {"runAsUser": 8, "runAsGroup": 9}, "", (7, 9, (9,)), id="container before pod"),
        pytest.param(
            {}, {"runAsUser": 5, "fsGroup": 70, "supplementalGroups": [60]}, "", (5, 0, (0, 60, 70)), id="groups"
        ),
        pytest.param({}, {"runAsUser": 33, "supplementalGroupsPolicy": "Strict"}, "", (33, 33, (33,)), id="strict"),
    ],
)
def test_users(
    image: Image, own: dict[str, Any], pods: dict[str, Any], user: str, expected: tuple[int, int, tuple[int, ...]]
) -> None:
    found = resolve(image, own, pods, user)
    assert (found.uid, found.gid, found.additional_gids) == expected


@pytest.mark.parametrize(
    ("own", "pods", "user", "message"),
    [
        pytest.param({"runAsUser": 0}, {}, "", "container's runAsUser breaks non-root policy", id="root was asked for"),
        pytest.param({}, {"runAsUser": 0}, "", "container's runAsUser breaks non-root policy", id="by the pod"),
        pytest.param({}, {}, "", "container has runAsNonRoot and image will run as root", id="the image is root's"),
        pytest.param(
            {}, {}, "web",
            "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root",
            id="a name proves nothing",
        ),
    ],
)  # fmt: skip
def test_root_is_refused(image: Image, own: dict[str, Any], pods: dict[str, Any], user: str, message: str) -> None:
    with pytest.raises(StartRefused) as refusal:
        resolve(image, own, {"runAsNonRoot": True} | pods, user)
    assert (refusal.value.reason, str(refusal.value)) == ("CreateContainerConfigError", f"{message} {WHERE}")


def test_the_container_may_allow_what_the_pod_forbids(image: Image) -> None:
    assert resolve(image, {"runAsNonRoot": False}, {"runAsNonRoot": True}).uid == 0
    assert resolve(image, {"runAsUser": 7}, {"runAsNonRoot": True}).uid == 7


def refused(profile: dict[str, Any]) -> set[str]:
    return {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}


def test_the_default_profile_refuses_what_reaches_the_machine() -> None:
    found = seccomp.runtime_default(oci.DEFAULT_CAPABILITIES, "x86_64")
    assert found["defaultAction"] == "SCMP_ACT_ALLOW"
    assert {"mount", "unshare", "setns", "bpf", "kexec_load", "keyctl", "init_module", "io_uring_setup"} <= refused(
        found
    )
    assert not refused(found) & {"chroot", "clone", "read", "ptrace", "setuid"}
    flags = [rule["args"][0]["value"] for rule in found["syscalls"] if "args" in rule]
    assert sum(flags) == 0x7E020000
    (clone3,) = [rule for rule in found["syscalls"] if rule["names"] == ["clone3"]]
    assert clone3["errnoRet"] == 38


def test_a_capability_brings_its_calls_along() -> None:
    found = refused(seccomp.runtime_default({"CAP_SYS_ADMIN", "CAP_BPF"}, "x86_64"))
    assert not found & {"mount", "unshare", "bpf", "clone3"}
    assert {"reboot", "keyctl", "chroot"} <= found


def test_privilege_takes_the_masks_away() -> None:
    for security, masked in (({}, True), ({"privileged": True}, False), ({"procMount": "Unmasked"}, False)):
        pod = make_pod({"name": "a", "securityContext": security})
        linux = oci.document(pod, pod.spec.containers[0], bundle())["linux"]
        assert ("/proc/kcore" in linux["maskedPaths"]) is masked
        assert ("/proc/sys" in linux["readonlyPaths"]) is masked


def test_all_capabilities_are_those_that_the_agent_has() -> None:
    grantable = oci.capabilities_in("Name:\tx\nCapBnd:\t0000000000200401\n")
    assert grantable == {"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"}
    everything = {"privileged": True}, {"capabilities": {"add": ["ALL"]}}
    for security in everything:
        (container,) = make_pod({"name": "a", "securityContext": security}).spec.containers
        assert set(oci.capabilities_of(container, grantable)) == grantable
    assert set(oci.capabilities_in("")) == set(oci.ALL_CAPABILITIES)
