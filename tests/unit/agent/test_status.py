"""What users see: phases, conditions, container states, and the patch that carries them."""

import msgspec
import pytest

from pilotage.agent.core import status as statuses
from pilotage.agent.core.state import ContainerRefused, ProbeChanged

from .builders import Life, make_pod, waiting_reason


def conditions(life: Life) -> dict[str, str]:
    return {one.type: one.status for one in life.status().conditions}


def test_from_creation_to_ready() -> None:
    life = Life(make_pod("a"))
    life.step()
    status = life.status()
    assert (status.phase, waiting_reason(status)) == ("Pending", "ContainerCreating")
    assert conditions(life)["PodReadyToStartContainers"] == "False"
    life.bring_up()
    assert conditions(life)["PodReadyToStartContainers"] == "True"
    life.started("a")
    status = life.status()
    assert (status.phase, status.pod_ip, status.is_ready) == ("Running", "10.0.0.2", True)
    assert status.container_statuses[0].state.running is not None


def test_while_init_containers_run_the_others_are_initializing() -> None:
    life = Life(make_pod("a", init=["one", "two"]))
    life.bring_up()
    life.started("one")
    status = life.status()
    assert (status.phase, waiting_reason(status), waiting_reason(status, "two")) == (
        "Pending",
        "PodInitializing",
        "PodInitializing",
    )
    initialized = status.condition("Initialized")
    assert initialized is not None
    assert initialized.message == "containers with incomplete status: [one two]"
    life.exited("one")
    assert life.status().condition("Initialized").message == "containers with incomplete status: [two]"


@pytest.mark.parametrize(
    ("reason", "after_s", "shown"),
    [
        ("ErrImagePull", 0.0, "ErrImagePull"),
        ("ErrImagePull", 1.5, "ImagePullBackOff"),
        ("ErrImageNeverPull", 5.0, "ErrImageNeverPull"),
        ("InvalidImageName", 5.0, "InvalidImageName"),
        ("CreateContainerConfigError", 0.0, "CreateContainerConfigError"),
    ],
)
def test_refusals_are_shown_with_their_reason(reason: str, after_s: float, shown: str) -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.step(ContainerRefused(name="a", reason=reason, message="m", at=life.now))
    life.now += after_s
    assert waiting_reason(life.status()) == shown
    assert life.status().phase == "Pending"


def test_a_crash_loop_shows_its_delay_and_the_last_end() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    for _ in range(6):
        life.started("a")
        life.exited("a", 2)
        if life.wake_at is not None and life.wake_at > life.now and life.state.record("a").attempt < 4:
            life.step(after_s=life.wake_at - life.now)
        elif life.state.record("a").phase == "backoff":
            break
    (shown,) = life.status().container_statuses
    assert shown.state.waiting is not None
    assert shown.state.waiting.message == "back-off 1m20s restarting failed container=a pod=p_ns(u1)"
    assert shown.last_state.terminated is not None
    assert shown.last_state.terminated.exit_code == 2
    assert (life.status().phase, shown.restart_count) == ("Running", 4)


def test_readiness_needs_startup_and_readiness_probes() -> None:
    probes = {"startupProbe": {"tcpSocket": {"port": 1}}, "readinessProbe": {"tcpSocket": {"port": 1}}}
    life = Life(make_pod({"name": "a", **probes}))
    life.bring_up()
    life.started("a")
    assert (life.status().container_statuses[0].started, life.status().is_ready) == (False, False)
    life.step(ProbeChanged(name="a", startup_passed=True))
    assert (life.status().container_statuses[0].started, life.status().is_ready) == (True, False)
    life.step(ProbeChanged(name="a", ready=True))
    assert life.status().is_ready


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (None, 'corresponding condition of pod readiness gate "x" does not exist.'),
        ("False", 'the status of pod readiness gate "x" is not "True", but False'),
        ("True", ""),
    ],
)
def test_readiness_gates(gate: str | None, message: str) -> None:
    found = [{"type": "x", "status": gate}] if gate else []
    life = Life(make_pod("a", readinessGates=[{"conditionType": "x"}], status={"conditions": found}))
    life.bring_up()
    life.started("a")
    ready = life.status().condition("Ready")
    assert ready is not None
    assert (ready.status, ready.message) == ("False" if message else "True", message)


def test_completed_pods_are_not_ready_for_a_reason() -> None:
    life = Life(make_pod("a", restartPolicy="Never"))
    life.bring_up()
    life.started("a")
    life.exited("a", 0)
    status = life.status()
    assert status.phase == "Succeeded"
    assert status.condition("Ready").reason == "PodCompleted"
    assert status.condition("Initialized").reason == "PodCompleted"


def test_transition_times_change_only_with_the_status() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.started("a")
    first = life.status()
    life.pod = msgspec.structs.replace(life.pod, status=first)
    life.now += 100
    assert life.status().conditions == first.conditions
    life.step(ProbeChanged(name="a", ready=False))
    ready = life.status().condition("Ready")
    assert ready is not None
    assert ready.last_transition_time != first.condition("Ready").last_transition_time


def test_the_patch_names_what_the_api_requires_and_clears_what_is_gone() -> None:
    life = Life(make_pod("a"))
    life.step()
    body = statuses.patch(life.pod, life.status())
    assert body["metadata"]["uid"] == "u1"
    (container,) = body["status"]["containerStatuses"]
    assert container["ready"] is False
    assert container["restartCount"] == 0
    assert container["imageID"] == ""
    assert container["state"] == {"waiting": {"reason": "ContainerCreating"}}
    ready = next(one for one in body["status"]["conditions"] if one["type"] == "Ready")
    assert ready["status"] == "False"
    assert body["status"]["reason"] is None
    assert "podIP" not in body["status"]


def test_a_pod_on_the_hosts_network_has_the_hosts_address() -> None:
    life = Life(make_pod("a", hostNetwork=True))
    life.bring_up()
    assert life.status().pod_ip == "10.89.0.11"
