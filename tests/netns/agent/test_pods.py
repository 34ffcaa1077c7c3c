"""Pods on a real node: what their containers see, how they end, and that nothing of them stays."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pilotage.agent.agent import is_privileged
from pilotage.api.codec import convert
from pilotage.api.core_v1 import ConfigMap, ContainerStatus, Event, Node, Pod, Secret, Service

from .conftest import NodeUnderTest, eventually

SLEEP = ["sleep", "1000"]


def is_ready(pod: Pod) -> bool:
    return pod.status.is_ready


def has_phase(phase: str) -> Any:
    return lambda pod: pod.status.phase == phase


def only(pod: Pod) -> ContainerStatus:
    (status,) = pod.status.container_statuses
    return status


async def events_of(node: NodeUnderTest, pod: Pod) -> dict[str, str]:
    """reason → message."""
    found = await node.client.list(Event, namespace="default")
    return {event.reason: event.message for event in found.items if event.involved_object.uid == pod.metadata.uid}


async def told(node: NodeUnderTest, pod: Pod, reason: str, text: str) -> None:
    """Wait for an event of the pod: they are written behind the scenes."""

    async def look() -> bool:
        events = (await node.client.list(Event, namespace="default")).items
        own = [one for one in events if one.involved_object.uid == pod.metadata.uid]
        return any(one.reason == reason and text in one.message for one in own)

    try:
        await eventually(look)
    except TimeoutError:
        pytest.fail(f"{reason} was never told; but {await events_of(node, pod)}")


async def printed(node: NodeUnderTest, pod: Pod, text: str, *, container: str = "c", attempt: int = 0) -> str:
    async def look() -> str | None:
        log = node.log(pod, container, attempt)
        return log if text in log else None

    try:
        return await eventually(look)
    except TimeoutError:
        pytest.fail(f"{text!r} was never printed; the log is {node.log(pod, container, attempt)[-2000:]!r}")


async def test_the_node_registers_with_capacity_addresses_and_conditions(node: NodeUnderTest) -> None:
    found = await node.client.get(Node, "n1")
    assert found.metadata.labels["kubernetes.io/hostname"] == "n1"
    assert found.spec.pod_cidr == "10.244.1.0/24"
    assert int(found.status.capacity["cpu"]) >= 1
    assert {one.type: one.status for one in found.status.conditions} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    assert ("InternalIP", "127.0.0.1") in {(one.type, one.address) for one in found.status.addresses}


async def test_a_pod_has_its_own_address_name_hosts_and_resolver(node: NodeUnderTest) -> None:
    script = "hostname; cat /etc/hosts /etc/resolv.conf; id -u; exec sleep 1000"
    await node.create("web", {"containers": [{"name": "c", "command": ["sh", "-c", script]}]})
    pod = await node.wait("web", is_ready)
    assert pod.status.phase == "Running"
    assert pod.status.pod_ip == "10.244.1.2"
    log = await printed(node, pod, "stdout F 0\n")
    assert "stdout F web\n" in log
    assert "10.244.1.2\tweb\n" in log
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in log
    assert "nameserver 10.96.0.10" in log
    assert only(pod).container_id.startswith("pilotage://")
    await told(node, pod, "Started", "Started container c")


async def test_a_deleted_pod_gets_sigterm_and_leaves_nothing(node: NodeUnderTest) -> None:
    script = "trap 'echo going > /dev/termination-log; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    spec = {"containers": [{"name": "c", "command": ["sh", "-c", script]}], "terminationGracePeriodSeconds": 120}
    await node.create("polite", spec)
    pod = await node.wait("polite", is_ready)
    await printed(node, pod, "up")
    namespace = node.config.run_dir / "netns" / pod.metadata.uid
    assert namespace.exists()
    await node.client.delete(Pod, "polite", namespace="default")

    async def gone() -> bool:
        return not (await node.client.list(Pod, namespace="default")).items

    await eventually(gone)  # far below the grace period: the signal was heard

    async def cleared() -> bool:
        return not (node.config.data_dir / "pods" / pod.metadata.uid).exists() and not namespace.exists()

    await eventually(cleared)
    assert not list(Path("/sys/fs/cgroup").glob(f"*{node.config.cgroup_parent}/**/pod{pod.metadata.uid}"))


async def test_prestop_runs_before_the_signal(node: NodeUnderTest, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/shared"}]}
    script = "trap 'echo term >> /shared/order; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /shared/order"]}}}
    spec = {
        "containers": [{"name": "c", "command": ["sh", "-c", script], "lifecycle": hook, **mount}],
        "volumes": [{"name": "v", "hostPath": {"path": str(shared), "type": "Directory"}}],
        "terminationGracePeriodSeconds": 10,
    }
    await node.create("hooked", spec)
    await printed(node, await node.wait("hooked", is_ready), "up")
    await node.client.delete(Pod, "hooked", namespace="default")

    async def both() -> bool:
        order = shared / "order"
        return order.exists() and order.read_text() == "hook\nterm\n"

    await eventually(both)


async def test_exit_codes_become_phases(node: NodeUnderTest) -> None:
    await node.create("good", {"containers": [{"name": "c", "command": ["true"]}], "restartPolicy": "Never"})
    failing = ["sh", "-c", "echo because > /dev/termination-log; exit 3"]
    await node.create("bad", {"containers": [{"name": "c", "command": failing}], "restartPolicy": "Never"})
    good = await node.wait("good", has_phase("Succeeded"))
    bad = await node.wait("bad", has_phase("Failed"))
    assert only(good).state.terminated is not None
    assert only(good).state.terminated.reason == "Completed"
    ended = only(bad).state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason, ended.message) == (3, "Error", "because\n")
    assert good.status.condition("Ready").reason == "PodCompleted"


@pytest.mark.skipif(not is_privileged(), reason="control groups cannot be written in a user namespace")
async def test_a_process_over_its_memory_limit_is_oom_killed(node: NodeUnderTest) -> None:
    container = {
        "name": "c",
        "command": ["python3", "-c", "x = bytearray(300 << 20)"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    await node.create("hungry", {"containers": [container], "restartPolicy": "Never"})
    pod = await node.wait("hungry", has_phase("Failed"))
    ended = only(pod).state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


async def test_a_crashing_container_is_restarted_at_once_and_then_held_back(node: NodeUnderTest) -> None:
    await node.create("crash", {"containers": [{"name": "c", "command": ["sh", "-c", "echo try; exit 1"]}]})

    def looping(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "CrashLoopBackOff"

    pod = await node.wait("crash", looping)
    assert only(pod).restart_count == 1
    assert only(pod).last_state.terminated is not None
    assert only(pod).last_state.terminated.exit_code == 1
    assert only(pod).state.waiting.message.startswith("back-off 10s restarting failed container=c pod=crash_default(")
    assert pod.status.phase == "Running"
    await printed(node, pod, "try", attempt=1)

    async def told() -> bool:
        return "BackOff" in await events_of(node, pod)

    await eventually(told)


async def test_a_killed_container_comes_back_with_the_same_address(node: NodeUnderTest) -> None:
    await node.create("web", {"containers": [{"name": "c", "command": SLEEP}]})
    before = await node.wait("web", is_ready)
    container_id = only(before).container_id.removeprefix("pilotage://")
    pid = int((node.config.run_dir / "containers" / container_id / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    after = await node.wait("web", lambda pod: only(pod).restart_count == 1 and is_ready(pod))
    assert after.status.pod_ip == before.status.pod_ip
    assert only(after).last_state.terminated.exit_code == 137
    assert only(after).last_state.terminated.reason == "Error"


async def test_init_containers_run_in_order_and_a_sidecar_beside(node: NodeUnderTest) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/scratch"}]}
    spec = {
        "initContainers": [
            {"name": "one", "command": ["sh", "-c", "echo one >> /scratch/order"], **mount},
            {"name": "side", "command": SLEEP, "restartPolicy": "Always", **mount},
            {"name": "two", "command": ["sh", "-c", "echo two >> /scratch/order"], **mount},
        ],
        "containers": [{"name": "c", "command": ["sh", "-c", "cat /scratch/order; exit 0"], **mount}],
        "volumes": [{"name": "work", "emptyDir": {}}],
        "restartPolicy": "Never",
    }
    await node.create("ordered", spec)
    pod = await node.wait("ordered", has_phase("Succeeded"))
    log = await printed(node, pod, "two")
    assert log.index("F one") < log.index("F two")
    one, side, two = pod.status.init_container_statuses
    assert one.state.terminated.exit_code == two.state.terminated.exit_code == 0
    assert side.state.terminated is not None  # stopped once the main container had ended
    assert pod.status.condition("Initialized").status == "True"


async def test_configuration_reaches_files_and_environment_and_follows_changes(node: NodeUnderTest) -> None:
    client = node.client
    meta = {"namespace": "default"}
    await client.create(convert(ConfigMap, {"metadata": {"name": "conf", **meta}, "data": {"color": "blue", "n": "1"}}))
    await client.create(convert(Secret, {"metadata": {"name": "key", **meta}, "data": {"token": "aHVzaA=="}}))
    container = {
        "name": "c",
        "command": [
            "sh", "-c",
            'echo "$COLOR $TOKEN $ALL_n $POD $(ALL_n)"; cat /conf/color /info/labels; echo; stat -L -c %a /secret/*;'
            # One write a line: what comes in parts is logged in parts.
            ' while :; do echo "$(cat /conf/color)"; sleep 0.1; done',
        ],
        "env": [
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "color"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "conf"}}],
        "volumeMounts": [
            {"name": "conf", "mountPath": "/conf"},
            {"name": "secret", "mountPath": "/secret"},
            {"name": "info", "mountPath": "/info"},
        ],
    }  # fmt: skip
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "secret", "secret": {"secretName": "key", "defaultMode": 0o400}},
        {
            "name": "info",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
    ]
    await node.create("configured", {"containers": [container], "volumes": volumes}, labels={"app": "x"})
    pod = await node.wait("configured", is_ready)
    log = await printed(node, pod, "stdout F 400")
    assert "stdout F blue hush 1 configured 1\n" in log
    assert 'app="x"' in log
    await client.patch(ConfigMap, "conf", {"data": {"color": "red"}}, namespace="default")
    await printed(node, pod, "stdout F red\n")


async def test_a_missing_config_map_is_named_and_the_pod_starts_once_it_exists(node: NodeUnderTest) -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "x"}}}]
    await node.create("early", {"containers": [{"name": "c", "command": SLEEP, "env": env}]})

    def refused(pod: Pod) -> bool:
        waiting = only(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "CreateContainerConfigError"

    pod = await node.wait("early", refused)
    assert only(pod).state.waiting.message == 'configmap "later" not found'
    document = {"metadata": {"name": "later", "namespace": "default"}, "data": {"x": "1"}}
    await node.client.create(convert(ConfigMap, document))
    await node.wait("early", is_ready)


async def test_an_image_that_must_not_be_pulled_is_refused(node: NodeUnderTest) -> None:
    container = {"name": "c", "image": "nowhere.test/app:1", "imagePullPolicy": "Never", "command": SLEEP}
    await node.create("absent", {"containers": [container]})

    def refused(pod: Pod) -> bool:
        return bool(pod.status.container_statuses) and only(pod).state.waiting.reason == "ErrImageNeverPull"

    pod = await node.wait("absent", refused)
    expected = 'Container image "nowhere.test/app:1" is not present with pull policy of Never'
    assert only(pod).state.waiting.message == expected
    assert pod.status.phase == "Pending"


async def test_a_command_that_does_not_exist_is_a_start_error(node: NodeUnderTest) -> None:
    spec = {"containers": [{"name": "c", "command": ["/no/such/program"]}], "restartPolicy": "Never"}
    await node.create("typo", spec)
    pod = await node.wait("typo", has_phase("Failed"))
    ended = only(pod).state.terminated
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert "/no/such/program" in ended.message


async def test_readiness_follows_the_probe_and_liveness_restarts(node: NodeUnderTest) -> None:
    server = "cd /srv/www && exec python3 -m http.server 8080"
    container = {
        "name": "c",
        "command": ["sh", "-c", f"mkdir -p /srv/www; touch /srv/www/ok /srv/www/alive; {server}"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
        "livenessProbe": {"httpGet": {"path": "/alive", "port": 8080}, "periodSeconds": 1, "initialDelaySeconds": 2},
    }
    await node.create("probed", {"containers": [container]})
    pod = await node.wait("probed", is_ready)
    container_id = only(pod).container_id.removeprefix("pilotage://")
    root = Path("/proc", (node.config.run_dir / "containers" / container_id / "pid").read_text(), "root")
    (root / "srv/www/ok").unlink()
    pod = await node.wait("probed", lambda pod: not is_ready(pod))
    assert pod.status.condition("Ready").message == "containers with unready status: [c]"
    (root / "srv/www/alive").unlink()
    # Once; or more often, if a busy machine starts the server slowly.
    pod = await node.wait("probed", lambda pod: only(pod).restart_count >= 1 and is_ready(pod))
    await told(node, pod, "Killing", "Container c failed liveness probe, will be restarted")
    await told(node, pod, "Unhealthy", "HTTP probe failed with statuscode: 404")


async def test_pods_reach_each_other_and_know_services_by_environment(node: NodeUnderTest) -> None:
    service = {
        "metadata": {"name": "my-db", "namespace": "default"},
        "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 5432, "name": "sql"}], "selector": {"app": "db"}},
    }
    await node.client.create(convert(Service, service))
    serve = "mkdir -p /srv/www; echo hello from a > /srv/www/x; cd /srv/www; exec python3 -m http.server 80"
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    await node.create("a", {"containers": [{"name": "c", "command": ["sh", "-c", serve], "readinessProbe": probe}]})
    a = await node.wait("a", is_ready)
    ask = f"import urllib.request as u; print(u.urlopen('http://{a.status.pod_ip}/x', timeout=5).read().decode())"
    script = f'echo $MY_DB_SERVICE_HOST $MY_DB_SERVICE_PORT_SQL; exec python3 -c "{ask}"'
    await node.create("b", {"containers": [{"name": "c", "command": ["sh", "-c", script]}], "restartPolicy": "Never"})
    b = await node.wait("b", has_phase("Succeeded"))
    log = await printed(node, b, "hello from a")
    assert "stdout F 10.96.7.7 5432\n" in log


async def test_containers_write_to_their_own_copy_and_cannot_see_the_clusters_files(node: NodeUnderTest) -> None:
    secret = node.config.data_dir / "secret"
    secret.write_text("hush")
    looks = f"ls {node.config.data_dir} | wc -l; cat {secret}; ls /run | wc -l; echo end"
    script = f"echo x > /etc/pilotage-was-here; {looks}"
    await node.create(
        "nosy", {"containers": [{"name": "c", "command": ["sh", "-c", script]}], "restartPolicy": "Never"}
    )
    pod = await node.wait("nosy", lambda pod: pod.status.phase in ("Succeeded", "Failed"))
    await printed(node, pod, "No such file")
    log = await printed(node, pod, "stdout F end\n")
    assert "hush" not in log
    assert log.count("stdout F 0\n") == 2
    assert not Path("/etc/pilotage-was-here").exists()
