"""How pods live and end on a real node: policies, deadlines, hooks, gates, messages."""

import time
from pathlib import Path
from typing import Any

from pilotage.api.core_v1 import Pod
from pilotage.client import PatchType

from .conftest import NodeUnderTest
from .test_pods import events_of, eventually, has_phase, is_ready, only, printed

LOOP = "while :; do sleep 0.05; done"


async def test_a_rule_restarts_one_container_of_a_pod_that_never_restarts(node: NodeUnderTest) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    script = "echo try; test -e /scratch/again && exit 3; touch /scratch/again; exit 42"
    container = {
        "name": "c", "command": ["sh", "-c", script], "restartPolicy": "Never", "restartPolicyRules": rules,
        "volumeMounts": [{"name": "work", "mountPath": "/scratch"}],
    }  # fmt: skip
    spec = {"containers": [container], "volumes": [{"name": "work", "emptyDir": {}}], "restartPolicy": "Never"}
    await node.create("ruled", spec)
    pod = await node.wait("ruled", has_phase("Failed"))
    assert only(pod).restart_count == 1
    assert only(pod).state.terminated.exit_code == 3
    assert only(pod).last_state.terminated.exit_code == 42


async def test_sidecars_outlive_the_main_container_and_stop_in_reverse(node: NodeUnderTest, tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.touch()
    mount = {"volumeMounts": [{"name": "order", "mountPath": "/order"}]}

    def waits(name: str) -> list[str]:
        return ["sh", "-c", f"trap 'echo {name} >> /order; exit 0' TERM; echo up; {LOOP}"]

    spec = {
        "initContainers": [
            {"name": "s1", "command": waits("s1"), "restartPolicy": "Always", **mount},
            {"name": "s2", "command": waits("s2"), "restartPolicy": "Always", **mount},
        ],
        "containers": [{"name": "c", "command": waits("main"), **mount}],
        "volumes": [{"name": "order", "hostPath": {"path": str(order), "type": "File"}}],
        "terminationGracePeriodSeconds": 10,
    }
    await node.create("beside", spec)
    pod = await node.wait("beside", is_ready)
    for name in ("s1", "s2", "c"):
        await printed(node, pod, "up", container=name)
    await node.client.delete(Pod, "beside", namespace="default")

    async def all_three() -> bool:
        return order.read_text() == "main\ns2\ns1\n"

    await eventually(all_three)


async def test_the_active_deadline_fails_the_pod(node: NodeUnderTest) -> None:
    spec = {"containers": [{"name": "c", "command": ["sleep", "1000"]}], "activeDeadlineSeconds": 1}
    await node.create("late", spec)
    pod = await node.wait("late", has_phase("Failed"))
    assert pod.status.reason == "DeadlineExceeded"
    assert pod.status.message == "Pod was active on the node longer than the specified deadline"
    assert only(pod).state.terminated.exit_code in (137, 143)

    async def told() -> bool:
        return "DeadlineExceeded" in await events_of(node, pod)

    await eventually(told)


async def test_a_failed_container_without_a_message_shows_the_end_of_its_log(node: NodeUnderTest) -> None:
    script = "for i in $(seq 1 200); do echo line $i; done; exit 1"
    container = {
        "name": "c",
        "command": ["sh", "-c", script],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    await node.create("logged", {"containers": [container], "restartPolicy": "Never"})
    message = only(await node.wait("logged", has_phase("Failed"))).state.terminated.message
    assert message.splitlines() == [f"line {number}" for number in range(121, 201)]


async def test_a_message_is_read_from_the_path_that_the_container_names(node: NodeUnderTest) -> None:
    container = {
        "name": "c",
        "command": ["sh", "-c", "echo done > /var/tmp/last-words"],
        "terminationMessagePath": "/var/tmp/last-words",
    }
    await node.create("spoken", {"containers": [container], "restartPolicy": "Never"})
    assert only(await node.wait("spoken", has_phase("Succeeded"))).state.terminated.message == "done\n"


async def test_the_messages_of_a_pod_are_bounded_together(node: NodeUnderTest) -> None:
    script = "head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log"
    for name, count, bytes_max in (("one", 1, 4096), ("six", 6, 2048)):
        containers = [{"name": f"c{number}", "command": ["sh", "-c", script]} for number in range(count)]
        await node.create(name, {"containers": containers, "restartPolicy": "Never"})
        pod = await node.wait(name, has_phase("Succeeded"))
        lengths = {len(status.state.terminated.message) for status in pod.status.container_statuses}
        assert lengths == {bytes_max}


async def test_the_container_names_its_stop_signal_and_a_sleep_delays_it(node: NodeUnderTest) -> None:
    script = f"trap 'echo usr1 > /dev/termination-log; exit 0' USR1; trap '' TERM; echo up; {LOOP}"
    lifecycle = {"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 1}}}
    spec: dict[str, Any] = {
        "containers": [{"name": "c", "command": ["sh", "-c", script], "lifecycle": lifecycle}],
        "os": {"name": "linux"},
        "terminationGracePeriodSeconds": 120,
    }
    await node.create("signalled", spec)
    pod = await node.wait("signalled", is_ready)
    assert only(pod).stop_signal == "SIGUSR1"
    await printed(node, pod, "up")
    await node.client.patch(Pod, "signalled", {"metadata": {"finalizers": ["test/keep"]}}, namespace="default")
    began = time.monotonic()
    await node.client.delete(Pod, "signalled", namespace="default")
    pod = await node.wait("signalled", lambda pod: only(pod).state.terminated is not None)
    assert 1.0 <= time.monotonic() - began < 60.0  # the grace period is twice that
    assert only(pod).state.terminated.message == "usr1\n"
    await node.client.patch(Pod, "signalled", {"metadata": {"finalizers": []}}, namespace="default")


async def test_a_container_runs_only_when_its_post_start_hook_is_done(node: NodeUnderTest) -> None:
    good = {"postStart": {"exec": {"command": ["sh", "-c", "sleep 0.5; echo hook > /proc/1/fd/1"]}}}
    bad = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}}
    await node.create("greeted", {"containers": [{"name": "c", "command": ["sleep", "1000"], "lifecycle": good}]})
    pod = await node.wait("greeted", is_ready)
    await printed(node, pod, "hook")
    spec = {"containers": [{"name": "c", "command": ["sleep", "1000"], "lifecycle": bad}], "restartPolicy": "Never"}
    await node.create("rejected", spec)
    pod = await node.wait("rejected", has_phase("Failed"))

    async def told() -> bool:
        return "PostStartHook failed: no" in (await events_of(node, pod)).get("FailedPostStartHook", "")

    await eventually(told)


async def test_deleting_a_pod_does_not_wait_for_a_long_post_start_hook(node: NodeUnderTest) -> None:
    hook = {"postStart": {"sleep": {"seconds": 600}}}
    container = {"name": "c", "command": ["sh", "-c", "echo up; exec sleep 1000"], "lifecycle": hook}
    await node.create("slow", {"containers": [container]})

    async def runs() -> bool:
        return "up" in node.log(await node.pod("slow"), "c")

    await eventually(runs)
    await node.client.delete(Pod, "slow", namespace="default")

    async def gone() -> bool:
        return not (await node.client.list(Pod, namespace="default")).items

    await eventually(gone)


async def test_a_probe_may_shorten_the_grace_period(node: NodeUnderTest) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = {
        "name": "c",
        "command": ["sh", "-c", f"trap '' TERM; {LOOP}"],
        "livenessProbe": probe | {"terminationGracePeriodSeconds": 1},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 600, "restartPolicy": "Never"}
    await node.create("deaf", spec)
    pod = await node.wait("deaf", has_phase("Failed"))
    assert only(pod).state.terminated.exit_code == 137


async def test_a_pod_with_a_readiness_gate_is_ready_when_its_condition_says_so(node: NodeUnderTest) -> None:
    gates = [{"conditionType": "test.dev/programmed"}]
    await node.create("gated", {"containers": [{"name": "c", "command": ["sleep", "1000"]}], "readinessGates": gates})

    def held(pod: Pod) -> bool:
        ready = pod.status.condition("Ready")
        return ready is not None and ready.reason == "ReadinessGatesNotReady"

    pod = await node.wait("gated", held)
    assert pod.status.condition("ContainersReady").status == "True"
    condition = {"type": "test.dev/programmed", "status": "True"}
    body = {"status": {"conditions": [condition]}}
    await node.client.patch(
        Pod, "gated", body, namespace="default", subresource="status", patch_type=PatchType.STRATEGIC
    )
    pod = await node.wait("gated", is_ready)
    assert pod.status.condition("Ready").observed_generation == pod.metadata.generation
    assert pod.status.observed_generation == pod.metadata.generation
