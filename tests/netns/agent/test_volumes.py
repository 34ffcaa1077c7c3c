"""Volumes on a real node: what they promise, and what happens when they cannot keep it."""

import socket
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.codec import convert, encode
from pilotage.api.core_v1 import Pod, Secret

from .conftest import NodeUnderTest
from .test_pods import events_of, eventually, has_phase, is_ready, only, printed

SLEEP = ["sleep", "1000"]


def pod_with(volume: dict[str, Any], script: str = "exec sleep 1000", **mount: Any) -> dict[str, Any]:
    container = {
        "name": "c",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "v", "mountPath": "/v"} | mount],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }
    return {"containers": [container], "volumes": [{"name": "v"} | volume], "restartPolicy": "Never"}


async def failure(node: NodeUnderTest, name: str, reason: str) -> str:
    pod = await node.pod(name)

    async def told() -> str | None:
        return (await events_of(node, pod)).get(reason)

    return await eventually(told)


@pytest.mark.parametrize(
    ("kind", "there", "called"),
    [
        ("Directory", "", "directory"),
        ("Directory", "file", "directory"),
        ("DirectoryOrCreate", "file", "directory"),
        ("File", "directory", "file"),
        ("FileOrCreate", "directory", "file"),
        ("Socket", "file", "socket file"),
        ("CharDevice", "file", "character device"),
        ("BlockDevice", "file", "block device"),
    ],
)
async def test_a_host_path_of_another_type_is_refused(
    node: NodeUnderTest, tmp_path: Path, kind: str, there: str, called: str
) -> None:
    path = tmp_path / "x"
    if there == "file":
        path.touch()
    elif there == "directory":
        path.mkdir()
    await node.create("typed", pod_with({"hostPath": {"path": str(path), "type": kind}}))
    message = await failure(node, "typed", "FailedMount")
    expected = f'MountVolume.SetUp failed for volume "v" : hostPath type check failed: {path} is not a {called}'
    assert message == expected


async def test_host_paths_that_fit_are_mounted(node: NodeUnderTest, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    (tmp_path / "file").write_text("x")
    kinds = {
        "socket": ("Socket", tmp_path / "socket"),
        "file": ("File", tmp_path / "file"),
        "null": ("CharDevice", Path("/dev/null")),
        "made": ("DirectoryOrCreate", tmp_path / "deep/made"),
        "new": ("FileOrCreate", tmp_path / "new"),
        "any": ("", tmp_path / "deep/any"),
    }
    volumes = [{"name": name, "hostPath": {"path": str(path), "type": kind}} for name, (kind, path) in kinds.items()]
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in kinds]
    script = "test -S /v/socket -a -s /v/file -a -c /v/null -a -d /v/made -a -f /v/new -a -d /v/any && echo fine"
    container = {"name": "c", "command": ["sh", "-c", script], "volumeMounts": mounts}
    await node.create("all", {"containers": [container], "volumes": volumes, "restartPolicy": "Never"})
    await printed(node, await node.wait("all", has_phase("Succeeded")), "fine")
    listener.close()


async def test_a_sub_path_may_be_made_of_variables(node: NodeUnderTest, tmp_path: Path) -> None:
    spec = pod_with({"hostPath": {"path": str(tmp_path)}}, "echo x > /v/y", subPathExpr="logs/$(POD)")
    await node.create("named", spec)
    await node.wait("named", has_phase("Succeeded"))
    assert (tmp_path / "logs/named/y").read_text() == "x\n"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("$(NOBODY)/x", "failed to expand subPathExpr '$(NOBODY)/x': missing value for 'NOBODY'"),
        ("$(UP)", "subPath '../..' must not contain '..'"),
    ],
)
async def test_a_sub_path_that_leads_nowhere_is_refused(
    node: NodeUnderTest, tmp_path: Path, expression: str, message: str
) -> None:
    spec = pod_with({"hostPath": {"path": str(tmp_path)}}, subPathExpr=expression)
    spec["containers"][0]["env"].append({"name": "UP", "value": "../.."})
    await node.create("lost", spec)

    def refused(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and (waiting.reason, waiting.message) == ("CreateContainerConfigError", message)

    await node.wait("lost", refused)


async def test_a_sub_path_cannot_follow_a_link_out_of_its_volume(node: NodeUnderTest, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    await node.create("linked", pod_with({"hostPath": {"path": str(tmp_path)}}, subPath="link"))

    def refused(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and "leads out of its volume" in waiting.message

    await node.wait("linked", refused)


async def test_a_pod_whose_empty_dir_outgrows_its_limit_is_evicted(node: NodeUnderTest) -> None:
    script = "head -c 3000000 /dev/zero > /v/x; exec sleep 1000"
    await node.create("greedy", pod_with({"emptyDir": {"sizeLimit": "1Mi"}}, script))
    await node.create("modest", pod_with({"emptyDir": {"sizeLimit": "10Mi"}}, script))
    pod = await node.wait("greedy", has_phase("Failed"))
    assert pod.status.reason == "Evicted"
    assert pod.status.message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert pod.status.condition("DisruptionTarget").reason == "TerminationByKubelet"
    assert await failure(node, "greedy", "Evicted")
    assert is_ready(await node.wait("modest", is_ready))


async def test_an_empty_dir_in_memory_cannot_outgrow_its_limit(node: NodeUnderTest) -> None:
    script = "head -c 3000000 /dev/zero > /v/x || echo full; stat -c %s /v/x"
    await node.create("small", pod_with({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, script))
    pod = await node.wait("small", has_phase("Succeeded"))
    assert " F 1048576\n" in await printed(node, pod, "F full")


async def test_a_claim_is_told_to_be_unsupported(node: NodeUnderTest) -> None:
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    await node.create("claimed", pod_with(claim))
    message = await failure(node, "claimed", "FailedMount")
    assert message == 'volume "v": persistentVolumeClaim is not supported by this node'


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        pytest.param(
            {"nfs": {"server": "10.0.0.1", "path": "/"}}, "its type is not supported by this node", id="network storage"
        ),
        pytest.param(
            {"emptyDir": {"medium": "HugePages"}}, 'storage medium "HugePages" is not supported by this node',
            id="huge pages",
        ),
    ],
)  # fmt: skip
async def test_what_the_node_cannot_mount_is_told(node: NodeUnderTest, volume: dict[str, Any], message: str) -> None:
    spec = pod_with(volume) | {"nodeName": "n1", "automountServiceAccountToken": False}
    spec["containers"][0]["image"] = "localhost/host"
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "unusual"}, "spec": spec}
    await node.client.request("POST", "/api/v1/namespaces/default/pods", body=encode(document))
    assert await failure(node, "unusual", "FailedMount") == f'volume "v": {message}'
    await node.create("usual", pod_with({"emptyDir": {}}))
    assert is_ready(await node.wait("usual", is_ready))


async def test_what_is_secret_is_never_on_a_disk(node: NodeUnderTest) -> None:
    document = {"metadata": {"name": "key", "namespace": "default"}, "data": {"a": "aHVzaA=="}}
    await node.client.create(convert(Secret, document))
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    kinds = {
        "secret": {"secret": {"secretName": "key", "defaultMode": 0o400}},
        "projected": {"projected": {"sources": [{"secret": {"name": "key"}}]}},
        "downward": {"downwardAPI": {"items": [labels]}},
        "disk": {"emptyDir": {}},
    }
    volumes = [{"name": name} | source for name, source in kinds.items()]
    mounts = [{"name": name, "mountPath": f"/v/{name}"} for name in kinds]
    script = "for i in /v/*; do echo $i $(stat -f -c %T $i); done; stat -L -c 'mode %a' /v/secret/a"
    container = {"name": "c", "command": ["sh", "-c", script], "volumeMounts": mounts}
    await node.create("secretive", {"containers": [container], "volumes": volumes, "restartPolicy": "Never"})
    log = await printed(node, await node.wait("secretive", has_phase("Succeeded")), "mode 400")
    for name in ("secret", "projected", "downward"):
        assert f" F /v/{name} tmpfs\n" in log
    assert " F /v/disk tmpfs\n" not in log


@pytest.mark.skipif(not is_privileged(), reason="in a user namespace there is only one user")
@pytest.mark.parametrize(
    ("security", "expected"),
    [
        pytest.param({}, "0 0 644", id="nobody in particular"),
        pytest.param({"runAsUser": 1000}, "1000 0 600", id="the one user of the pod"),
        pytest.param({"fsGroup": 2000}, "0 2000 640", id="the pod's group"),
    ],
)
async def test_a_token_belongs_to_who_needs_it(node: NodeUnderTest, security: dict[str, int], expected: str) -> None:
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]
    spec = pod_with({"projected": {"sources": sources}}, "stat -L -c '%u %g %a' /v/token; wc -c < /v/token")
    await node.create("bearer", spec | {"securityContext": security})
    log = await printed(node, await node.wait("bearer", has_phase("Succeeded")), " F ")
    assert f" F {expected}\n" in log


@pytest.mark.skipif(not is_privileged(), reason="in a user namespace there is only one user")
async def test_an_ordinary_user_may_write_where_a_sub_path_was_made(node: NodeUnderTest) -> None:
    spec = pod_with({"emptyDir": {}}, "echo x > /v/x && cat /v/x", subPath="deep/er")
    await node.create("ordinary", spec | {"securityContext": {"runAsUser": 1000}})
    await printed(node, await node.wait("ordinary", has_phase("Succeeded")), " F x\n")
