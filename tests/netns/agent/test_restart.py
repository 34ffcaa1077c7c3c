"""The agent dies and comes back: containers run on, ends are noticed, nothing is started twice."""

import os
import signal
from pathlib import Path

from pilotage.api.core_v1 import Pod
from pilotage.network.namespaces import unmount

from .conftest import NodeUnderTest, eventually
from .test_pods import SLEEP, is_ready, only


def pid_of(node: NodeUnderTest, pod: Pod) -> int:
    container_id = only(pod).container_id.removeprefix("pilotage://")
    return int((node.config.run_dir / "containers" / container_id / "pid").read_text())


async def test_a_running_container_is_found_again_undisturbed(node: NodeUnderTest) -> None:
    await node.create("web", {"containers": [{"name": "c", "command": SLEEP}]})
    before = await node.wait("web", is_ready)
    pid = pid_of(node, before)
    await node.stop_agent()
    assert Path(f"/proc/{pid}").exists()
    await node.start_agent()
    await node.create("other", {"containers": [{"name": "c", "command": SLEEP}]})
    other = await node.wait("other", is_ready)
    after = await node.pod("web")
    assert only(after).container_id == only(before).container_id
    assert only(after).restart_count == 0
    assert after.status.is_ready
    assert pid_of(node, after) == pid
    assert other.status.pod_ip != after.status.pod_ip


async def test_an_end_while_the_agent_was_away_is_noticed_with_its_exit_code(node: NodeUnderTest) -> None:
    await node.create("web", {"containers": [{"name": "c", "command": SLEEP}]})
    before = await node.wait("web", is_ready)
    pid = pid_of(node, before)
    await node.stop_agent()
    os.kill(pid, signal.SIGKILL)
    exit_file = node.config.run_dir / "exits" / only(before).container_id.removeprefix("pilotage://")

    async def written() -> bool:
        return exit_file.exists()

    await eventually(written)
    await node.start_agent()
    after = await node.wait("web", lambda pod: only(pod).restart_count == 1 and is_ready(pod))
    assert only(after).last_state.terminated.exit_code == 137


async def test_a_pod_deleted_while_the_agent_was_away_is_cleared(node: NodeUnderTest) -> None:
    await node.create("web", {"containers": [{"name": "c", "command": SLEEP}]})
    pod = await node.wait("web", is_ready)
    pid = pid_of(node, pod)
    await node.stop_agent()
    await node.client.delete(Pod, "web", namespace="default", grace_period_s=0)
    await node.start_agent()

    async def cleared() -> bool:
        return not (node.config.data_dir / "pods" / pod.metadata.uid).exists() and not Path(f"/proc/{pid}").exists()

    await eventually(cleared)


async def test_after_a_restart_of_the_machine_containers_are_started_anew(node: NodeUnderTest) -> None:
    work = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    spec = {
        "initContainers": [{"name": "init", "command": ["sh", "-c", "echo again >> /v/times"], **work}],
        "containers": [{"name": "c", "command": SLEEP, **work}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    await node.create("web", spec)
    pod = await node.wait("web", is_ready)
    pid = pid_of(node, pod)
    await node.stop_agent()
    # What a machine loses: processes and namespaces; disks stay.
    os.kill(pid, signal.SIGKILL)
    uid = pod.metadata.uid
    for path in (node.config.run_dir / "netns" / uid, *(node.config.run_dir / "sandboxes" / uid).iterdir()):
        unmount(str(path))

    async def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await eventually(gone)
    await node.start_agent()
    after = await node.wait("web", lambda pod: only(pod).restart_count == 1 and is_ready(pod))
    assert after.metadata.uid == uid
    times = node.config.data_dir / "pods" / uid / "volumes" / "v" / "times"
    assert times.read_text() == "again\nagain\n"
