"""What a pod shares and with whom: processes, the node's namespaces and ports, names and kernel settings."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.core_v1 import Pod
from pilotage.network.namespaces import run_in

from .conftest import NodeUnderTest
from .test_pods import events_of, eventually, has_phase, is_ready, only, printed

SLEEP = ["sleep", "1000"]


def finished(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def holder_pid(node: NodeUnderTest, pod: Pod) -> int:
    return int((node.config.run_dir / "sandboxes" / pod.metadata.uid / "holder" / "pid").read_text())


async def test_containers_share_processes_and_nothing_is_left_of_them(node: NodeUnderTest) -> None:
    looks = (
        "until pgrep -fx 'sleep 7654' > /dev/null; do sleep 0.05; done; "
        "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; pgrep -fx 'sleep 7654'; echo end; exec sleep 1000"
    )
    spec = {
        "containers": [
            {"name": "c", "command": ["sh", "-c", looks]},
            {"name": "other", "command": ["sleep", "7654"]},
        ],
        "shareProcessNamespace": True,
    }
    await node.create("shared", spec)
    pod = await node.wait("shared", is_ready)
    log = await printed(node, pod, "stdout F end\n")
    lines = [line.split(" F ")[1] for line in log.splitlines()]
    assert lines[0] == "sleep"
    assert int(lines[1]) >= 4  # the holder, both containers, and what counts them
    assert lines[2].isdigit()


async def test_orphans_are_reaped_in_a_shared_process_namespace(node: NodeUnderTest) -> None:
    orphans = (
        "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.6; "
        "until [ $(grep -l '^State:.Z' /proc/[0-9]*/status | wc -l) = 0 ]; do sleep 0.05; done; echo 0"
    )
    spec = {"containers": [{"name": "c", "command": ["sh", "-c", orphans]}], "shareProcessNamespace": True}
    await node.create("orphans", spec | {"restartPolicy": "Never"})
    pod = await node.wait("orphans", has_phase("Succeeded"))
    await printed(node, pod, "stdout F 0\n")


async def test_the_holder_cannot_be_used_to_reach_the_nodes_files(node: NodeUnderTest) -> None:
    secret = node.config.data_dir / "secret"
    secret.write_text("hush")
    script = f"id -u; ls /proc/1/root/ >/dev/null && echo seen; cat /proc/1/root{secret}; echo end"
    container = {
        "name": "c",
        "command": ["sh", "-c", script],
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}},
    }
    spec = {"containers": [container], "shareProcessNamespace": True, "restartPolicy": "Never"}
    await node.create("curious", spec)
    pod = await node.wait("curious", finished)
    log = await printed(node, pod, "stdout F end\n")
    assert "hush" not in log


async def test_a_pod_whose_holder_was_killed_comes_back(node: NodeUnderTest) -> None:
    await node.create("held", {"containers": [{"name": "c", "command": SLEEP}], "shareProcessNamespace": True})
    pod = await node.wait("held", is_ready)
    os.kill(holder_pid(node, pod), signal.SIGKILL)
    after = await node.wait("held", lambda pod: only(pod).restart_count >= 1 and is_ready(pod))
    assert after.status.pod_ip


async def test_a_restarted_agent_keeps_the_shared_processes(node: NodeUnderTest) -> None:
    await node.create("held", {"containers": [{"name": "c", "command": SLEEP}], "shareProcessNamespace": True})
    before = await node.wait("held", is_ready)
    pid = holder_pid(node, before)
    await node.stop_agent()
    await node.start_agent()
    after = await node.wait("held", is_ready)
    assert only(after).container_id == only(before).container_id
    assert holder_pid(node, after) == pid


async def test_a_pod_may_use_the_nodes_namespaces(node: NodeUnderTest) -> None:
    kinds = ("net", "pid", "ipc")
    script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds) + "; hostname; echo $HOSTNAME"
    spec = {
        "containers": [{"name": "c", "command": ["sh", "-c", script]}],
        "hostNetwork": True,
        "hostPID": True,
        "hostIPC": True,
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["seven", "sept"]}],
        "restartPolicy": "Never",
    }
    await node.create("guest", spec)
    pod = await node.wait("guest", has_phase("Succeeded"))
    log = await printed(node, pod, socket.gethostname())
    for kind in kinds:
        assert os.readlink(f"/proc/self/ns/{kind}") in log
    assert log.count(f" F {socket.gethostname()}\n") == 2
    assert pod.status.pod_ip == pod.status.host_ip == node.config.node_ip
    hosts = (node.config.data_dir / "pods" / pod.metadata.uid / "hosts").read_text()
    assert "192.0.2.7\tseven\tsept\n" in hosts


async def test_names_aliases_and_sysctls_of_a_pod(node: NodeUnderTest) -> None:
    sysctls = [
        {"name": "net.ipv4.ip_local_port_range", "value": "20000 20010"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]
    script = (
        "hostname; echo $HOSTNAME; grep sept /etc/hosts; "
        "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced"
    )
    spec = {
        "containers": [{"name": "c", "command": ["sh", "-c", script]}],
        "hostname": "web",
        "subdomain": "db",
        "setHostnameAsFQDN": True,
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["seven", "sept"]}],
        "securityContext": {"sysctls": sysctls},
        "restartPolicy": "Never",
    }
    await node.create("named", spec)
    pod = await node.wait("named", finished)
    log = await printed(node, pod, "stdout F 1\n")
    assert log.count(" F web.db.default.svc.cluster.local\n") == 2
    assert " F 192.0.2.7\tseven\tsept\n" in log
    assert " F 20000\t20010\n" in log


async def test_a_name_that_is_too_long_is_told(node: NodeUnderTest) -> None:
    container = {"name": "c", "command": SLEEP}
    spec = {"containers": [container], "hostname": "h" * 40, "subdomain": "db", "setHostnameAsFQDN": True}
    await node.create("long", spec)
    pod = await node.pod("long")

    async def told() -> bool:
        message = (await events_of(node, pod)).get("FailedCreatePodSandBox", "")
        return "is too long (64 characters is the max" in message

    await eventually(told)


async def ask(address: str, port: int, namespace: Path | None = None) -> bytes:
    """One line from a server, asked from the node or from another namespace."""

    def connect() -> socket.socket:
        connection = socket.socket()
        connection.settimeout(3)
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    def talk() -> bytes:
        connection = run_in(namespace, connect) if namespace is not None else connect()
        with connection:
            return connection.recv(100)

    return await asyncio.to_thread(talk)


async def test_a_host_port_leads_to_the_pod_from_everywhere_and_goes_with_it(node: NodeUnderTest) -> None:
    serve = (
        "import socket\ns = socket.create_server(('', 80))\n"
        "while 1:\n c, peer = s.accept(); c.sendall(b'pod'); c.close()\n"
    )
    container: dict[str, Any] = {
        "name": "c",
        "command": ["python3", "-c", serve],
        "ports": [{"containerPort": 80, "hostPort": 18080}],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    }
    await node.create("ported", {"containers": [container]})
    await node.create("client", {"containers": [{"name": "c", "command": SLEEP}]})
    pod, client = await node.wait("ported", is_ready), await node.wait("client", is_ready)
    gateway = "10.244.1.1"  # an address of the node
    assert await ask(gateway, 18080) == b"pod"
    assert await ask(gateway, 18080, node.config.run_dir / "netns" / client.metadata.uid) == b"pod"
    assert await ask(gateway, 18080, node.config.run_dir / "netns" / pod.metadata.uid) == b"pod"
    await node.stop_agent()
    await node.start_agent()
    assert await ask(gateway, 18080) == b"pod"
    await node.client.delete(Pod, "ported", namespace="default")

    async def refused() -> bool:
        try:
            await ask(gateway, 18080)
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
        return False

    await eventually(refused)


@pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
async def test_the_holder_counts_for_its_pod(node: NodeUnderTest) -> None:
    await node.create("held", {"containers": [{"name": "c", "command": SLEEP}], "shareProcessNamespace": True})
    pod = await node.wait("held", is_ready)
    groups = Path("/proc", str(holder_pid(node, pod)), "cgroup").read_text()
    assert pod.metadata.uid in groups
