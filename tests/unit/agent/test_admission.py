"""Which pods a node does not take, and what it says."""

from typing import Any

import pytest

from pilotage.agent.core import admission, qos
from pilotage.agent.core.admission import NodeView, Rejection
from pilotage.agent.core.state import PodMustEnd
from pilotage.api.core_v1 import Pod, Taint

from .builders import Life, make_pod


def asking(cpu: str = "0", memory: str = "0", **spec: Any) -> Pod:
    return make_pod({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}, **spec)


def with_port(port: int, **more: Any) -> Pod:
    return make_pod({"name": "a", "ports": [{"containerPort": 80, "hostPort": port, **more}]})


def node(*pods: Pod, **changes: Any) -> NodeView:
    values: dict[str, Any] = {
        "name": "n1",
        "labels": {"zone": "a"},
        "taints": (),
        "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"},
        "pods": pods,
    }
    return NodeView(**(values | changes))


def resource(name: str, wanted: int, used: int, capacity: int) -> Rejection:
    message = f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
    return Rejection(reason=f"OutOf{name}", message=f"Pod was rejected: {message}")


NO_EXECUTE = Taint(key="gone", effect="NoExecute")
PORTS = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
AFFINITY = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
TAINT = "Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
SYSCTL = 'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted'
HOST_NET = 'Pod was rejected: forbidden sysctl: "net.ipv4.tcp_rmem" not allowed with host net enabled'
DISK = "Pod was rejected: The node had condition: [DiskPressure MemoryPressure]. "
BEARS = [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]
PRESSURE = "Pod was rejected: The node had condition: [MemoryPressure]. "


def sysctl(name: str) -> dict[str, Any]:
    return {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}


@pytest.mark.parametrize(
    ("pod", "view", "expected"),
    [
        pytest.param(asking("2"), node(), None, id="all of it"),
        pytest.param(asking("1500m"), node(asking("1")), resource("cpu", 1500, 1000, 2000), id="cpu is short"),
        pytest.param(asking("0", "2Gi"), node(), resource("memory", 2 << 30, 0, 1 << 30), id="memory is short"),
        pytest.param(asking(), node(asking(), asking(), asking()), resource("pods", 1, 3, 3), id="pods are many"),
        pytest.param(
            make_pod({"name": "a", "resources": {"limits": {"x.test/gpu": "1"}}}), node(),
            resource("x.test/gpu", 1, 0, 0), id="a device that nobody has",
        ),
        pytest.param(with_port(80), node(with_port(81)), None, id="another port"),
        pytest.param(with_port(80), node(with_port(80)), Rejection(reason="NodePorts", message=PORTS), id="same port"),
        pytest.param(make_pod("a", nodeSelector={"zone": "a"}), node(), None, id="the right zone"),
        pytest.param(
            make_pod("a", nodeSelector={"zone": "b"}), node(), Rejection(reason="NodeAffinity", message=AFFINITY),
            id="the wrong zone",
        ),
        pytest.param(
            make_pod("a"), node(taints=[NO_EXECUTE]), Rejection(reason="TaintToleration", message=TAINT), id="taint"
        ),
        pytest.param(
            make_pod("a", tolerations=[{"operator": "Exists"}]), node(taints=[NO_EXECUTE]), None, id="it tolerates that"
        ),
        pytest.param(
            make_pod("a"), node(taints=[Taint(key="full", effect="NoSchedule")]), None, id="a late taint"
        ),
        pytest.param(make_pod("a", **sysctl("net.ipv4.tcp_rmem")), node(), None, id="a safe sysctl"),
        pytest.param(
            make_pod("a", **sysctl("kernel.msgmax")), node(), Rejection(reason="SysctlForbidden", message=SYSCTL),
            id="an unsafe sysctl",
        ),
        pytest.param(
            make_pod("a", hostNetwork=True, **sysctl("net/ipv4/tcp_rmem")), node(),
            Rejection(reason="SysctlForbidden", message=HOST_NET), id="the node's own network",
        ),
        pytest.param(
            make_pod("a"), node(pressure=["MemoryPressure"]), Rejection(reason="Evicted", message=PRESSURE),
            id="pressure",
        ),
        pytest.param(asking("0", "1Mi"), node(pressure=["MemoryPressure"]), None, id="it has asked for memory"),
        pytest.param(
            make_pod("a", tolerations=BEARS), node(pressure=["MemoryPressure"]), None, id="it can bear that"
        ),
        pytest.param(
            asking("0", "1Mi", tolerations=BEARS), node(pressure=["MemoryPressure", "DiskPressure"]),
            Rejection(reason="Evicted", message=DISK), id="disks are everybody's",
        ),
        pytest.param(
            make_pod("a", priority=2_000_000_000), node(pressure=["DiskPressure"]), None, id="it is critical"
        ),
    ],
)  # fmt: skip
def test_admission(pod: Pod, view: NodeView, expected: Rejection | None) -> None:
    assert admission.admit(pod, view) == expected


def test_requests_of_a_pod() -> None:
    def container(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}

    init = [container("big", "3"), container("side", "500m", restartPolicy="Always"), container("late", "1")]
    assert qos.pod_requests(make_pod(container("a", "1"), init=init)) == {"cpu": 3000}
    assert qos.pod_requests(make_pod(container("a", "2"), container("b", "1"), init=init)) == {"cpu": 3500}
    whole = make_pod(container("a", "2"), resources={"requests": {"cpu": "4"}}, overhead={"cpu": "100m"})
    assert qos.pod_requests(whole) == {"cpu": 4100}


def test_a_rejected_pod_fails_without_ever_having_a_sandbox() -> None:
    life = Life(make_pod("a"))
    assert life.step(PodMustEnd(reason="OutOfcpu", message="no")) == []
    status = life.status()
    assert (status.phase, status.reason, status.message) == ("Failed", "OutOfcpu", "no")
