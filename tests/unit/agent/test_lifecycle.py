"""The pod state machine: what happens after what."""

import itertools
import random

import pytest

from pilotage.agent.core import reception, timestamps
from pilotage.agent.core.actions import (
    ConfirmDeletion,
    CreateSandbox,
    MountVolumes,
    RemoveSandbox,
    StartContainer,
    StopContainer,
)
from pilotage.agent.core.container import TRANSITIONS, ContainerEvent, ContainerPhase, IllegalTransitionError, advance
from pilotage.agent.core.crash_backoff import CrashBackoff
from pilotage.agent.core.state import (
    ContainerCondemned,
    ContainerResumed,
    PodState,
    ProbeChanged,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxRemoved,
    VolumesFailed,
    VolumesMounted,
)
from pilotage.api.codec import decode, encode

from .builders import NOW, Life, deleting, make_pod, starts, stops, told


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(ContainerPhase, ContainerEvent)))
def test_every_step_is_either_in_the_table_or_refused(phase: ContainerPhase, event: ContainerEvent) -> None:
    if (phase, event) in TRANSITIONS:
        assert advance(phase, event) is TRANSITIONS[phase, event]
    else:
        with pytest.raises(IllegalTransitionError):
            advance(phase, event)


def test_every_phase_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) | {ContainerPhase.WAITING} == set(ContainerPhase)
    assert {before for before, _ in TRANSITIONS} == set(ContainerPhase)


def test_volumes_and_sandbox_come_first_and_together() -> None:
    life = Life(make_pod("a", "b"))
    assert life.step() == [MountVolumes(), CreateSandbox()]
    assert life.step() == []
    assert life.step(VolumesMounted()) == []
    assert starts(life.step(SandboxReady(pod_ips=("10.0.0.2",)))) == ["a", "b"]
    assert life.step() == []


def test_failures_are_tried_again_with_growing_delay() -> None:
    life = Life(make_pod("a"))
    life.step()
    life.step(SandboxReady(pod_ips=("10.0.0.2",)))
    for delay_s in (1, 2, 4, 8):
        assert life.step(VolumesFailed(message="no", at=life.now)) == []
        assert life.wake_at == life.now + delay_s
        assert life.step(after_s=delay_s) == [MountVolumes()]
    life = Life(make_pod("a"))
    life.step()
    life.step(SandboxFailed(message="no", at=life.now))
    assert life.step(after_s=1) == [CreateSandbox()]


def test_init_containers_go_one_by_one_and_only_once() -> None:
    life = Life(make_pod("a", init=["one", "two"]))
    assert starts(life.bring_up()) == ["one"]
    assert life.started("one") == []
    assert starts(life.exited("one")) == ["two"]
    life.started("two")
    assert starts(life.exited("two")) == ["a"]
    life.started("a")
    assert starts(life.exited("a", 1)) == ["a"]


def test_a_failed_init_container_is_repeated_or_ends_the_pod() -> None:
    life = Life(make_pod("a", init=["one"]))
    life.bring_up()
    life.started("one")
    assert starts(life.exited("one", 1)) == ["one"]
    life = Life(make_pod("a", init=["one"], restartPolicy="Never"))
    life.bring_up()
    life.started("one")
    assert life.exited("one", 1) == [RemoveSandbox()]
    assert life.state.finished == "Failed"


def test_a_sidecar_must_have_started_and_is_stopped_last() -> None:
    side = {"name": "side", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
    life = Life(make_pod("a", init=[side, "two"], restartPolicy="Never"))
    assert starts(life.bring_up()) == ["side"]
    assert life.started("side") == []
    assert starts(life.step(ProbeChanged(name="side", startup_passed=True, ready=True))) == ["two"]
    life.started("two")
    assert starts(life.exited("two")) == ["a"]
    life.started("a")
    assert stops(life.exited("a")) == [("side", 30.0)]
    assert life.exited("side", 143) == [RemoveSandbox()]
    assert life.state.finished == "Succeeded"


def test_a_crashing_sidecar_comes_back_while_the_pod_runs() -> None:
    side = {"name": "side", "restartPolicy": "Always"}
    life = Life(make_pod("a", init=[side], restartPolicy="Never"))
    life.bring_up()
    life.started("side")
    life.started("a")
    assert starts(life.exited("side", 1)) == ["side"]


@pytest.mark.parametrize(
    ("policy", "code", "again", "verdict"),
    [
        ("Always", 0, True, ""),
        ("Always", 1, True, ""),
        ("OnFailure", 0, False, "Succeeded"),
        ("OnFailure", 1, True, ""),
        ("Never", 0, False, "Succeeded"),
        ("Never", 1, False, "Failed"),
    ],
)
def test_restart_policy(policy: str, code: int, again: bool, verdict: str) -> None:
    life = Life(make_pod("a", restartPolicy=policy))
    life.bring_up()
    life.started("a")
    actions = life.exited("a", code)
    assert starts(actions) == (["a"] if again else [])
    assert (RemoveSandbox() in actions) is not again
    assert life.state.finished == verdict


def test_a_pod_is_over_only_when_all_its_containers_are() -> None:
    life = Life(make_pod("a", "b", restartPolicy="Never"))
    life.bring_up()
    life.started("a")
    life.started("b")
    assert life.exited("a", 1) == []
    assert life.exited("b", 0) == [RemoveSandbox()]
    assert life.state.finished == "Failed"


def test_crash_loop_waits_ten_seconds_doubling_to_five_minutes() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    delays = []
    for _ in range(8):
        life.started("a")
        actions = life.exited("a", 1, after_s=0.5)
        if starts(actions):
            delays.append(0.0)
            continue
        assert told(actions) == [("BackOff", "Back-off restarting failed container a in pod p_ns(u1)")]
        assert life.wake_at is not None
        delays.append(life.wake_at - life.now)
        assert starts(life.step(after_s=life.wake_at - life.now)) == ["a"]
    assert delays == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert life.state.record("a").attempt == 8


def test_crash_loop_is_forgotten_after_ten_quiet_minutes() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    for _ in range(2):
        life.started("a")
        life.exited("a", 1)
    life.step(after_s=10)
    life.started("a")
    assert starts(life.exited("a", 1, after_s=601)) == ["a"]


def test_backoff_counts_from_the_failure() -> None:
    backoff = CrashBackoff().tried(NOW)
    assert backoff.until(NOW + 7, NOW + 8) == NOW + 17
    assert CrashBackoff().until(NOW, NOW) == NOW


def test_image_trouble_is_tried_again_later_and_configuration_sooner() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.refused("a", "ErrImagePull")
    assert told(life.step(after_s=1)) == [("BackOff", 'Back-off pulling image "localhost/host"')]
    assert life.step(after_s=1) == []
    assert starts(life.step(after_s=8)) == ["a"]
    life.refused("a", "ErrImagePull")
    life.step(after_s=1)
    assert life.wake_at == life.now + 19
    life = Life(make_pod("a"))
    life.bring_up()
    life.refused("a", "CreateContainerConfigError")
    assert starts(life.step(after_s=reception.CONFIG_RETRY_S)) == ["a"]
    assert life.state.record("a").attempt == 0


def test_deletion_stops_all_then_clears_then_confirms() -> None:
    life = Life(make_pod("a", "b"))
    life.bring_up()
    life.started("a")
    life.started("b")
    life.pod = deleting(life.pod, 10)
    actions = life.step()
    assert stops(actions) == [("a", 10.0), ("b", 10.0)]
    assert ("Killing", "Stopping container a") in told(actions)
    assert life.exited("a", 143) == []
    assert life.exited("b", 143) == [RemoveSandbox()]
    assert life.removed() == [ConfirmDeletion()]
    assert life.step() == []


def test_sidecars_share_the_deadline_of_the_main_containers() -> None:
    life = Life(
        make_pod("a", init=[{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}])
    )
    life.bring_up()
    for name in ("s1", "s2", "a"):
        life.started(name)
    life.pod = deleting(life.pod, 10)
    assert stops(life.step()) == [("a", 10.0)]
    assert stops(life.exited("a", 143, after_s=4)) == [("s2", 6.0)]
    assert stops(life.exited("s2", 143, after_s=20)) == [("s1", 0.0)]


def test_a_shorter_grace_period_moves_the_deadline_and_a_longer_one_does_not() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.started("a")
    life.pod = deleting(life.pod, 30)
    life.step()
    life.pod = deleting(life.pod, 5)
    (stop,) = life.step(after_s=1)
    assert isinstance(stop, StopContainer)
    assert (stop.grace_s, stop.hurry) == (5.0, True)
    life.pod = deleting(life.pod, 60)
    assert life.step() == []


def test_deletion_before_anything_ran_needs_no_stop() -> None:
    life = Life(deleting(make_pod("a")))
    assert life.step() == [ConfirmDeletion()]


def test_deletion_waits_for_what_is_under_way() -> None:
    life = Life(make_pod("a"))
    life.step()
    life.pod = deleting(life.pod)
    assert life.step() == []
    assert life.step(SandboxReady(pod_ips=("10.0.0.2",))) == []
    assert life.step(VolumesMounted()) == [RemoveSandbox()]
    life = Life(make_pod("a"))
    life.bring_up()
    life.pod = deleting(life.pod)
    assert life.step() == []
    assert stops(life.started("a")) == [("a", 30.0)]


def test_a_condemned_container_is_stopped_and_restarted() -> None:
    life = Life(make_pod("a", restartPolicy="Always"))
    life.bring_up()
    life.started("a")
    actions = life.step(ContainerCondemned(name="a", message="failed liveness probe", grace_s=7))
    assert (stops(actions), told(actions)) == ([("a", 7.0)], [("Killing", "failed liveness probe")])
    assert starts(life.exited("a", 137)) == ["a"]


def test_the_active_deadline_ends_a_running_pod() -> None:
    life = Life(make_pod("a", activeDeadlineSeconds=60))
    life.bring_up()
    life.started("a")
    assert life.wake_at == NOW + 60
    actions = life.step(after_s=60)
    assert stops(actions) == [("a", 30.0)]
    life.exited("a", 143)
    assert (life.state.finished, life.status().reason) == ("Failed", "DeadlineExceeded")


def test_a_finished_pod_starts_nothing_ever_again() -> None:
    life = Life(make_pod("a", restartPolicy="Never", status={"phase": "Succeeded"}))
    assert life.step() == []
    assert life.status().phase == "Succeeded"


def test_losing_the_sandbox_repeats_init_containers_and_restarts_the_rest() -> None:
    life = Life(make_pod("a", init=["one"]))
    life.bring_up()
    life.started("one")
    life.exited("one")
    life.started("a")
    assert life.step(SandboxLost(at=life.now)) == [MountVolumes(), CreateSandbox()]
    assert starts(life.step(VolumesMounted(), SandboxReady(pod_ips=("10.0.0.3",)))) == ["one"]
    life.started("one")
    assert starts(life.exited("one")) == ["a"]
    assert [record.attempt for record in life.state.records] == [1, 1]


def test_a_container_lost_with_its_sandbox_starts_again_at_once_and_ended_when_that_was_noticed() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.started("a")
    life.exited("a", 1)
    life.started("a")
    life.exited("a", 1)  # the next failure would have to wait
    life.step(after_s=20)
    life.started("a")
    life.step(SandboxLost(at=life.now))
    assert starts(life.step(VolumesMounted(), SandboxReady(pod_ips=("10.0.0.3",)))) == ["a"]
    life.started("a")
    ended = life.status().container_statuses[0].last_state.terminated
    assert ended is not None
    assert (ended.reason, ended.finished_at) == ("Unknown", timestamps.to_text(life.now))


def test_losing_the_sandbox_does_not_repeat_a_job_that_is_done() -> None:
    life = Life(make_pod("a", "b", restartPolicy="Never"))
    life.bring_up()
    life.started("a")
    life.started("b")
    life.exited("a", 0)
    life.step(SandboxLost(at=life.now))
    actions = life.step(VolumesMounted(), SandboxReady(pod_ips=("10.0.0.3",)))
    assert starts(actions) == []
    assert life.state.finished == "Failed"


def test_state_survives_the_disk() -> None:
    life = Life(make_pod("a", init=["one"]))
    life.bring_up()
    life.started("one")
    life.exited("one", 1)
    assert decode(PodState, encode(life.state)) == life.state


def test_restart_counts_go_on_from_the_api_when_memory_is_lost() -> None:
    status = {
        "containerStatuses": [
            {"name": "a", "restartCount": 4, "ready": True, "image": "", "imageID": "", "containerID": "pilotage://x"}
        ]
    }
    life = Life(make_pod("a", status=status))
    (start,) = life.bring_up()
    assert isinstance(start, StartContainer)
    assert start.attempt == 5


@pytest.mark.parametrize("seed", range(60))
def test_random_lives_keep_the_pods_promises(seed: int) -> None:
    """Whatever happens in whatever order: counts never fall, a finished pod stays so, an ended one goes away."""
    dice = random.Random(seed)
    policy = dice.choice(["Always", "OnFailure", "Never"])
    init = [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}][: dice.randint(0, 2)]
    life = Life(make_pod("a", "b", init=init, restartPolicy=policy))
    names = [record.name for record in life.state.records]
    stopped: set[str] = set()
    phases: list[str] = []
    for _ in range(120):
        before = {record.name: record.attempt for record in life.state.records}
        actions = life.step(after_s=dice.choice([0, 0, 0.1, 5, 40]))
        for _ in range(dice.randint(0, 3)):
            name = dice.choice(names)
            record = life.state.record(name)
            match record.phase, dice.random():
                case ContainerPhase.STARTING, roll if roll < 0.6:
                    life.started(name)
                case ContainerPhase.STARTING, _:
                    life.refused(name, dice.choice(["ErrImagePull", "CreateContainerConfigError"]))
                case (ContainerPhase.RUNNING, roll) if roll < 0.5:
                    life.exited(name, dice.choice([0, 1, 137]))
                case (ContainerPhase.RUNNING, roll) if roll < 0.6:
                    life.step(ContainerCondemned(name=name, message="m", grace_s=1), ContainerResumed(name=name))
                case ContainerPhase.STOPPING, _:
                    life.exited(name, 143)
                case _:
                    pass
        if life.state.volumes == "mounting":
            life.step(dice.choice([VolumesMounted(), VolumesFailed(message="", at=life.now)]))
        if life.state.sandbox == "creating":
            life.step(dice.choice([SandboxReady(pod_ips=("1.1.1.1",)), SandboxFailed(message="", at=life.now)]))
        if life.state.sandbox == "removing":
            life.step(SandboxRemoved())
        if dice.random() < 0.02:
            life.pod = deleting(life.pod, dice.choice([0, 5, 30]))
        if dice.random() < 0.02 and life.state.sandbox == "ready":
            life.step(SandboxLost(at=life.now))
        for record in life.state.records:
            assert record.attempt >= before[record.name]
            assert not record.is_running or record.container_id
        stopped |= {name for name, _ in stops(actions)}
        status = life.status()
        phases.append(status.phase)
        if status.is_ready:
            assert all(one.ready for one in status.container_statuses)
        if life.state.finished:
            assert not any(record.may_have_process for record in life.state.records)
    over = [phase for phase in phases if phase in ("Succeeded", "Failed")]
    assert len(set(over)) <= 1
    if over:
        assert phases[phases.index(over[0]) :] == over
