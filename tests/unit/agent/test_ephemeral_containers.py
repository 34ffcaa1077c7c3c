"""Containers added to a running pod: begun once, never again, and of no account to the pod's own course."""

import msgspec

from pilotage.agent.core.state import SandboxLost
from pilotage.api.core_v1 import EphemeralContainer, Pod

from .builders import Life, deleting, make_pod, starts, stops


def with_added(pod: Pod, *names: str) -> Pod:
    added = tuple(EphemeralContainer(name=name, image="localhost/host") for name in names)
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, ephemeral_containers=added))


def running(*names: str, **spec: object) -> Life:
    life = Life(make_pod("a", **spec))
    life.bring_up()
    life.started("a")
    life.pod = with_added(life.pod, *names)
    return life


def test_an_added_container_starts_in_a_running_pod_and_never_again() -> None:
    life = running("look")
    assert starts(life.step()) == ["look"]
    life.started("look")
    assert starts(life.exited("look", 1)) == []
    assert starts(life.step(after_s=3600)) == []
    (shown,) = life.status().ephemeral_container_statuses
    assert shown.state.terminated is not None and shown.state.terminated.exit_code == 1
    life.pod = with_added(life.pod, "look", "again")
    assert starts(life.step()) == ["again"]


def test_it_waits_for_nothing_but_the_sandbox() -> None:
    life = Life(with_added(make_pod("a", init=["first"]), "look"))
    assert starts(life.bring_up()) == ["look", "first"]


def test_it_neither_makes_a_pod_ready_nor_keeps_it_from_its_end() -> None:
    life = running("look", restartPolicy="Never")
    life.step()
    assert life.status().is_ready
    life.started("look")
    status = life.status()
    assert status.is_ready and not status.ephemeral_container_statuses[0].ready and status.phase == "Running"
    assert [name for name, _ in stops(life.exited("a"))] == ["look"]
    life.exited("look", 137)
    assert life.status().phase == "Succeeded"


def test_it_is_stopped_with_the_pod() -> None:
    life = running("look")
    life.step()
    life.started("look")
    life.pod = deleting(life.pod)
    assert {name for name, _ in stops(life.step())} == {"a", "look"}


def test_it_does_not_come_back_after_a_restart_of_the_machine() -> None:
    life = running("look")
    life.step()
    life.started("look")
    life.step(SandboxLost(at=life.now))
    assert starts(life.bring_up()) == ["a"]
    assert starts(life.step(after_s=3600)) == []
