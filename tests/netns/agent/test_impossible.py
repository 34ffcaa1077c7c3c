"""What cannot run: state, reason and event as users know them, with the thing at fault named; other pods run on."""

from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.core_v1 import ConfigMap, Pod
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.status import ApiError

from .conftest import NodeUnderTest
from .test_pods import SLEEP, is_ready, only, told
from .test_restart import pid_of

KEY = {"configMapKeyRef": {"name": "there", "key": "absent"}}
# id → (what is wrong with the container, what with the pod, waiting reason, its message, event: reason and message)
WAITING = {
    "bad image name": (
        {"image": "UPPER//case"},
        {},
        "InvalidImageName",
        'Failed to apply default image tag "UPPER//case"',
        ("InspectFailed", 'Failed to apply default image tag "UPPER//case"'),
    ),
    "image never pulled": (
        {"image": "example.test/none:1", "imagePullPolicy": "Never"},
        {},
        "ErrImageNeverPull",
        'Container image "example.test/none:1" is not present with pull policy of Never',
        ("ErrImageNeverPull", 'Container image "example.test/none:1" is not present'),
    ),
    "absent ConfigMap": (
        {"envFrom": [{"configMapRef": {"name": "none"}}]},
        {},
        "CreateContainerConfigError",
        'configmap "none" not found',
        ("Failed", 'Error: configmap "none" not found'),
    ),
    "absent key": (
        {"env": [{"name": "X", "valueFrom": KEY}]},
        {},
        "CreateContainerConfigError",
        "couldn't find key absent in ConfigMap default/there",
        ("Failed", "Error: couldn't find key absent in ConfigMap default/there"),
    ),
    "absent Secret": (
        {"envFrom": [{"secretRef": {"name": "none"}}]},
        {},
        "CreateContainerConfigError",
        'secret "none" not found',
        ("Failed", 'Error: secret "none" not found'),
    ),
    "root refused": (
        {"securityContext": {"runAsNonRoot": True}},
        {},
        "CreateContainerConfigError",
        "container has runAsNonRoot and image will run as root",
        ("Failed", "Error: container has runAsNonRoot and image will run as root"),
    ),
    "no command": (
        {"command": ["/does/not/exist"]},
        {},
        "RunContainerError CrashLoopBackOff",
        "",
        ("Failed", "/does/not/exist"),
    ),
    "absent volume source": (
        {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
        {"volumes": [{"name": "v", "secret": {"secretName": "none"}}]},
        "ContainerCreating",
        "",
        ("FailedMount", 'secret "none" not found'),
    ),
}
# id → (spec, phase Failed with this reason, message)
REJECTED = {
    "unsupported sysctl": (
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
        "SysctlForbidden",
        'forbidden sysctl: "kernel.msgmax" not allowlisted',
    ),
    "another node's labels": ({"nodeSelector": {"disk": "fast"}}, "NodeAffinity", "Predicate NodeAffinity failed"),
}


@pytest.fixture
async def beside(node: NodeUnderTest) -> NodeUnderTest:
    """A node where a good pod runs, on a port of the node."""
    container = {"name": "c", "command": SLEEP, "ports": [{"containerPort": 80, "hostPort": 8080}]}
    await node.create("good", {"containers": [container]})
    await node.client.create(ConfigMap(metadata=ObjectMeta(name="there", namespace="default"), data={"other": "1"}))
    await node.wait("good", is_ready)
    return node


async def test_what_cannot_start_waits_and_says_why(beside: NodeUnderTest) -> None:
    good = await beside.pod("good")
    pid = pid_of(beside, good)
    names = {case: f"bad-{index}" for index, case in enumerate(WAITING)}
    for case, (container, spec, *_) in WAITING.items():
        await beside.create(names[case], {"containers": [{"name": "c", "command": SLEEP, **container}], **spec})
    for case, (_, _, reasons, message, (event, text)) in WAITING.items():

        def waits(pod: Pod, reasons: str = reasons, message: str = message) -> bool:
            shown = only(pod).state.waiting if pod.status.container_statuses else None
            return shown is not None and shown.reason in reasons.split() and shown.message.startswith(message)

        pod = await beside.wait(names[case], waits)
        # One that was tried counts as having run.
        assert (case, pod.status.phase) == (case, "Running" if case == "no command" else "Pending")
        await told(beside, pod, event, text)
    after = await beside.pod("good")
    assert (pid_of(beside, after), only(after).restart_count, is_ready(after)) == (pid, 0, True)


async def test_what_the_node_refuses_has_failed(beside: NodeUnderTest) -> None:
    port = {"ports": [{"containerPort": 81, "hostPort": 8080}]}
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        **REJECTED,
        "taken host port": (
            {"containers": [{"name": "c", "command": SLEEP, **port}]},
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
    }
    for index, (spec, reason, message) in enumerate(cases.values()):
        await beside.create(f"no-{index}", {"containers": [{"name": "c", "command": SLEEP}], **spec})
        pod = await beside.wait(f"no-{index}", lambda pod: pod.status.phase == "Failed")
        assert pod.status.reason == reason
        assert message in pod.status.message
        await told(beside, pod, reason, message.removeprefix("Pod was rejected: "))
    assert is_ready(await beside.pod("good"))


@pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
async def test_too_little_memory_to_start_at_all(beside: NodeUnderTest) -> None:
    container = {"name": "c", "command": SLEEP, "resources": {"limits": {"memory": "64Ki"}}}
    await beside.create("tiny", {"containers": [container], "restartPolicy": "Never"})
    pod = await beside.wait("tiny", lambda pod: pod.status.phase == "Failed")
    ended = only(pod).state.terminated
    assert (ended.reason, ended.exit_code) in (("StartError", 128), ("OOMKilled", 137))
    if ended.reason == "StartError":
        await told(beside, pod, "Failed", "memory")


async def test_what_the_api_can_see_is_refused_at_once_with_the_field(beside: NodeUnderTest) -> None:
    for container, field in (
        ({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}, "spec.containers[0].resources"),
        ({"volumeMounts": [{"name": "none", "mountPath": "/v"}]}, "spec.containers[0].volumeMounts[0].name"),
        ({"readinessProbe": {"tcpSocket": {"port": 80}, "timeoutSeconds": -1}}, "readinessProbe.timeoutSeconds"),
    ):
        with pytest.raises(ApiError) as caught:
            await beside.create("bad", {"containers": [{"name": "c", **container}]})
        assert caught.value.reason == "Invalid"
        assert field in str(caught.value)
