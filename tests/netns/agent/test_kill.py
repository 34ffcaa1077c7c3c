"""kill -9 of the agent, in every state of a pod's life: nothing is started twice, nothing is lost, counts are right."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilotage.api.core_v1 import ContainerStatus, Pod

from .conftest import NodeUnderTest, eventually, node_under_test
from .mortal_agent import MortalAgents
from .test_pods import has_phase, is_ready
from .test_user_namespaces import needs_root

WORK = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
VOLUMES = [{"name": "v", "emptyDir": {}}]


def script(name: str, then: str) -> list[str]:
    """Every start leaves a line."""
    return ["sh", "-c", f"echo {name} >> /v/starts; {then}"]


STUBBORN = "trap 'touch /v/asked' TERM; while true; do sleep 0.05; done"
# Ends when it is told to, and by itself once there is a file `end`.
SERVE = "trap 'exit 0' TERM; until [ -e /v/end ]; do sleep 0.05; done; rm /v/end; exit 1"


def starts(node: NodeUnderTest, pod: Pod) -> list[str]:
    path = volume(node, pod) / "starts"
    return path.read_text().split() if path.exists() else []


def volume(node: NodeUnderTest, pod: Pod) -> Path:
    return node.config.data_dir / "pods" / pod.metadata.uid / "volumes" / "v"


@asynccontextmanager
async def mortal(tmp_path: Path) -> AsyncIterator[tuple[NodeUnderTest, MortalAgents]]:
    async with node_under_test(tmp_path) as node:
        agents = await MortalAgents.open(node.kubeconfig, node.config, tmp_path)
        try:
            yield node, agents
            await node.clear()
        finally:
            await agents.aclose()


STARTING = [
    "before open_sandbox",
    "after open_sandbox",
    "before create",
    "after create",
    "before runc start",
    "after runc start",
]
ENDING = ["before TERM", "after TERM", "before runc delete", "after remove", "before close_sandbox",
          "after close_sandbox"]  # fmt: skip


@pytest.mark.parametrize("host_users", [True, pytest.param(False, marks=needs_root)], ids=["usual", "users of its own"])
async def test_an_agent_that_dies_in_the_middle_of_a_step_is_followed_by_one_that_finishes_it(
    tmp_path: Path, host_users: bool
) -> None:
    containers = [{"name": "c", "command": script("c", SERVE), **WORK}]
    spec = {"containers": containers, "volumes": VOLUMES, "hostUsers": host_users}
    async with mortal(tmp_path) as (node, agents):
        await agents.start()
        for number, point in enumerate(STARTING):
            agents.die_at(point)
            pod = await node.create(f"pod-{number}", spec)
            await agents.died()
            await agents.start()
            pod = await node.wait(pod.metadata.name, is_ready)
            (status,) = pod.status.container_statuses
            assert (point, status.restart_count, starts(node, pod)) == (point, 0, ["c"])
        # Between the end of a container and the start of the next, which is immediate the first time.
        for number, point in enumerate(("before runc delete", "before create", "after runc start", "after remove")):
            pod = await node.pod(f"pod-{number}")
            agents.die_at(point)
            (volume(node, pod) / "end").touch()
            await agents.died()
            await agents.start()
            pod = await node.wait(pod.metadata.name, lambda pod: is_ready(pod) and restarted(pod) > 0)
            assert (point, restarted(pod), starts(node, pod)) == (point, 1, ["c", "c"])
        for number, point in enumerate(ENDING):
            agents.die_at(point)
            pod = await node.pod(f"pod-{number}")
            await node.client.delete(Pod, pod.metadata.name, namespace="default")
            await agents.died()
            await agents.start()

            async def gone(uid: str = pod.metadata.uid) -> bool:
                left = await node.client.list(Pod, namespace="default")
                there = any(one.metadata.uid == uid for one in left.items)
                return not there and not (node.config.data_dir / "pods" / uid).exists()

            await eventually(gone)


def restarted(pod: Pod) -> int:
    return pod.status.container_statuses[0].restart_count


GRACE_S = 15  # longer than a busy machine needs from the deletion to the look at what the next agent says
# name → (spec, what the pod has come to before the agent is killed)
Reached = Any
STATES: dict[str, tuple[dict[str, Any], Reached]] = {
    "ready": ({"containers": [{"name": "c", "command": script("c", SERVE), **WORK}]}, is_ready),
    "initialising": (
        {
            "initContainers": [
                {"name": "done", "command": script("done", "true"), **WORK},
                {"name": "side", "command": script("side", SERVE), "restartPolicy": "Always", **WORK},
                {"name": "busy", "command": script("busy", "until [ -e /v/go ]; do sleep 0.05; done"), **WORK},
            ],
            "containers": [{"name": "c", "command": script("c", SERVE), **WORK}],
        },
        lambda pod: len(pod.status.init_container_statuses) == 3
        and pod.status.init_container_statuses[2].state.running is not None,
    ),
    "unprobed": (
        {
            "containers": [
                {
                    "name": "c",
                    "command": script("c", SERVE),
                    "startupProbe": {"exec": {"command": ["test", "-e", "/v/go"]}, "periodSeconds": 1,
                                     "failureThreshold": 600},
                    **WORK,
                }
            ]
        },
        lambda pod: bool(pod.status.container_statuses) and pod.status.container_statuses[0].state.running is not None,
    ),
    "held-back": (
        {"containers": [{"name": "c", "command": script("c", "exit 3"), **WORK}]},
        lambda pod: waiting(pod) == "CrashLoopBackOff",
    ),
    "refused": (
        {
            "containers": [
                {"name": "c", "command": script("c", SERVE), "envFrom": [{"configMapRef": {"name": "none"}}], **WORK}
            ]
        },
        lambda pod: waiting(pod) == "CreateContainerConfigError",
    ),
    "over": (
        {"containers": [{"name": "c", "command": script("c", "true"), **WORK}], "restartPolicy": "Never"},
        has_phase("Succeeded"),
    ),
    "stopping": (
        {
            "containers": [{"name": "c", "command": script("c", STUBBORN), **WORK}],
            "terminationGracePeriodSeconds": GRACE_S,
        },
        is_ready,
    ),
}  # fmt: skip


def waiting(pod: Pod) -> str:
    shown = pod.status.container_statuses[0].state.waiting if pod.status.container_statuses else None
    return shown.reason if shown is not None else ""


def facts(pod: Pod) -> dict[str, tuple[str, int, str]]:
    """What no restart of the agent may change."""

    def state(one: ContainerStatus) -> str:
        return next(name for name in ("running", "terminated", "waiting") if getattr(one.state, name) is not None)

    shown = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    return {one.name: (one.container_id, one.restart_count, state(one)) for one in shown}


async def test_a_kill_in_any_state_changes_nothing(tmp_path: Path) -> None:
    async with mortal(tmp_path) as (node, agents):
        await agents.start()
        before: dict[str, Pod] = {}
        # The one that is held back comes last: it is started again ten seconds after its end.
        for names in ([name for name in STATES if name != "held-back"], ["held-back"]):
            for name in names:
                await node.create(name, {"volumes": VOLUMES, **STATES[name][0]})
            before |= {name: await node.wait(name, STATES[name][1]) for name in names}
        await node.client.delete(Pod, "stopping", namespace="default", grace_period_s=GRACE_S)

        async def asked() -> bool:
            return (volume(node, before["stopping"]) / "asked").exists()

        await eventually(asked)
        ran = {name: starts(node, pod) for name, pod in before.items()}
        await agents.kill()
        await agents.start()
        # Something that happens after the restart, so that what is seen then is what the new agent says.
        await node.create("after", {"containers": [{"name": "c", "command": ["sleep", "1000"]}]})
        await node.wait("after", is_ready)
        for name, pod in before.items():
            assert (name, starts(node, pod)) == (name, ran[name])
            assert (name, facts(await node.pod(name))) == (name, facts(pod))
        # And each goes on from where it stood.
        for name in ("initialising", "unprobed"):
            (volume(node, before[name]) / "go").touch()
            pod = await node.wait(name, is_ready)
            assert {one.name: one.restart_count for one in pod.status.container_statuses} == {"c": 0}
        assert sorted(starts(node, before["initialising"])) == ["busy", "c", "done", "side"]

        async def stopped() -> bool:
            pods = await node.client.list(Pod, namespace="default")
            return all(pod.metadata.name != "stopping" for pod in pods.items)

        await eventually(stopped, within_s=60)
