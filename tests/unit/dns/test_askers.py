"""Clients' namespaces, while addresses pass from pod to pod in whatever order the news come."""

from __future__ import annotations

import pytest

from pilotage.api.core_v1 import Pod, PodIP, PodSpec, PodStatus
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns.core.askers import Askers


def pod(namespace: str, *addresses: str, phase: str = "Running", host: bool = False, uid: str = "") -> Pod:
    return Pod(
        metadata=ObjectMeta(name="p", namespace=namespace, uid=uid or namespace),
        spec=PodSpec(host_network=host),
        status=PodStatus(phase=phase, pod_ips=tuple(PodIP(ip=address) for address in addresses)),
    )


def test_each_address_of_a_pod_is_its_namespaces() -> None:
    askers = Askers()
    askers.set(None, pod("a", "10.244.1.2", "FD00::0:2"))
    assert [askers.namespace_of(x) for x in ("10.244.1.2", "fd00::2", "10.244.1.3")] == ["a", "a", ""]
    askers.set(pod("a", "10.244.1.2", "FD00::0:2"), pod("a", "10.244.1.3"))
    assert [askers.namespace_of(x) for x in ("10.244.1.2", "fd00::2", "10.244.1.3")] == ["", "", "a"]


@pytest.mark.parametrize("last", [None, pod("a", "10.244.1.2", phase="Succeeded"), pod("a")])
def test_news_of_an_old_pod_takes_nothing_from_the_one_that_has_its_address_now(last: Pod | None) -> None:
    askers = Askers()
    old, new = pod("a", "10.244.1.2"), pod("b", "10.244.1.2")
    askers.set(None, old)
    askers.set(None, new)
    askers.set(old, last)
    assert askers.namespace_of("10.244.1.2") == "b"
    askers.set(new, None)
    assert askers.namespace_of("10.244.1.2") == ""


def test_a_pod_of_the_same_name_is_another_pod() -> None:
    askers = Askers()
    old = pod("a", "10.244.1.2", uid="1")
    askers.set(None, old)
    askers.set(None, pod("a", "10.244.1.2", uid="2"))
    askers.set(old, None)
    assert askers.namespace_of("10.244.1.2") == "a"


@pytest.mark.parametrize(
    "silent", [pod("a", "10.89.0.11", host=True), pod("a", "10.89.0.11", phase="Failed"), pod("a", "nonsense")]
)
def test_a_node_and_finished_pods_are_nobody(silent: Pod) -> None:
    askers = Askers()
    askers.set(None, silent)
    assert askers.namespace_of("10.89.0.11") == ""
    askers.set(silent, None)
    assert askers.namespace_of("nonsense") == ""
