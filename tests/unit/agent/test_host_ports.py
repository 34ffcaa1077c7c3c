"""hostPort as rules, sysctls and names of a pod's own namespaces."""

import re
from typing import Any

import pytest

from pilotage.agent.core import host_ports, oci, resolver
from pilotage.agent.core.resolver import HostnameTooLongError
from pilotage.api.core_v1 import Pod
from pilotage.nft.core.objects import DeleteTable, Table, Transaction, render

from .builders import make_pod
from .test_container_document import bundle


def with_ports(*ports: dict[str, Any], **spec: Any) -> Pod:
    return make_pod({"name": "a", "ports": list(ports)}, **spec)


def test_a_pod_without_host_ports_needs_no_table() -> None:
    pods = {"10.244.1.2": with_ports({"containerPort": 80})}
    table = Table(family="ip", name=host_ports.NAME)
    assert host_ports.plan(pods, ["ip"]) == Transaction((DeleteTable(table),))


def test_ports_of_one_address_and_of_all_go_into_two_maps() -> None:
    pod = with_ports(
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "10.89.0.11"},
    )
    text = render(host_ports.plan({"10.244.1.2": pod}, ["ip"]))
    assert "tcp . 8080 : 10.244.1.2 . 80" in text
    assert "10.89.0.11 . udp . 5353 : 10.244.1.2 . 53" in text
    assert "fib daddr type local dnat ip to meta l4proto . th dport map @any" in text
    assert "ip6" not in text


@pytest.mark.parametrize(
    ("host_ip", "expected"),
    [
        pytest.param("", ["tcp . 8080 : 10.244.1.2 . 80", "tcp . 8080 : fd00:244::2 . 80"], id="both families"),
        pytest.param("0.0.0.0", ["tcp . 8080 : 10.244.1.2 . 80"], id="all of IPv4"),
        pytest.param("::", ["tcp . 8080 : fd00:244::2 . 80"], id="all of IPv6"),
        pytest.param("10.89.0.11", ["10.89.0.11 . tcp . 8080 : 10.244.1.2 . 80"], id="one of IPv4"),
        pytest.param("fd00:89::11", ["fd00:89::11 . tcp . 8080 : fd00:244::2 . 80"], id="one of IPv6"),
    ],
)
def test_a_host_ip_is_of_one_family(host_ip: str, expected: list[str]) -> None:
    pod = with_ports({"containerPort": 80, "hostPort": 8080, "hostIP": host_ip})
    text = render(host_ports.plan({"10.244.1.2": pod, "fd00:244::2": pod}, ["ip", "ip6"]))
    assert re.findall(r"(?:[0-9a-f.:]+ \. )?tcp \. 8080 : \S+ \. 80", text) == expected


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        pytest.param({"hostPort": 80}, {"hostPort": 80}, True, id="the same port"),
        pytest.param({"hostPort": 80}, {"hostPort": 81}, False, id="another port"),
        pytest.param({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, False, id="another protocol"),
        pytest.param({"hostPort": 80}, {"hostPort": 80, "hostIP": "10.0.0.1"}, True, id="every address has it already"),
        pytest.param(
            {"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, False, id="other addresses"
        ),
        pytest.param({"hostPort": 80, "hostIP": "::"}, {"hostPort": 80, "hostIP": "0.0.0.0"}, True, id="every address"),
        pytest.param({"hostPort": 80, "hostIP": "::"}, {"hostPort": 80, "hostIP": "10.0.0.1"}, False, id="IPv6 alone"),
    ],
)
def test_claims_conflict(one: dict[str, Any], other: dict[str, Any], clash: bool) -> None:
    (first,) = host_ports.claims(with_ports({"containerPort": 1} | one))
    (second,) = host_ports.claims(with_ports({"containerPort": 2} | other))
    assert host_ports.conflicts(first, second) is clash
    assert host_ports.conflicts(second, first) is clash


def test_a_pod_on_the_nodes_network_claims_its_container_ports() -> None:
    assert host_ports.claims(with_ports({"containerPort": 9100}, hostNetwork=True)) == (("", "TCP", 9100),)


def test_sysctls_stay_in_the_pods_own_namespaces() -> None:
    asked = [
        {"name": "net/ipv4/ip_local_port_range", "value": "1024 2048"},
        {"name": "kernel.shm_rmid_forced", "value": "1"},
    ]
    pod = make_pod("a", securityContext={"sysctls": asked})
    container = pod.spec.containers[0]
    found = oci.document(pod, container, bundle())["linux"]["sysctl"]
    assert found == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ip_local_port_range": "1024 2048",
        "kernel.shm_rmid_forced": "1",
    }
    on_the_node = bundle(namespaces={"mount": "", "pid": ""})
    assert oci.document(pod, container, on_the_node)["linux"]["sysctl"] == {}


def test_a_full_name_that_the_kernel_cannot_hold_is_refused() -> None:
    def named(subdomain: str) -> Pod:
        return make_pod("a", hostname="web", subdomain=subdomain, setHostnameAsFQDN=True)

    assert resolver.kernel_hostname(named("db"), "cluster.local") == "web.db.ns.svc.cluster.local"
    with pytest.raises(
        HostnameTooLongError, match=r"is too long \(64 characters is the max, 79 characters requested\)"
    ):
        resolver.kernel_hostname(named("d" * 54), "cluster.local")
