"""Which container runs again after which exit code, and what the pod's phase becomes (KEP-5307, KEP-753)."""

from typing import Any

import pytest

from pilotage.agent.core.actions import RemoveSandbox
from pilotage.agent.core.state import ContainerExited, PodMustEnd

from .builders import Life, make_pod, starts, stops


def rule(operator: str, *values: int) -> dict[str, Any]:
    return {"action": "Restart", "exitCodes": {"operator": operator, "values": list(values)}}


CASES = [
    # pod's policy, container's own, its rules, exit code, runs again
    pytest.param("Never", "", [], 1, False, id="the pod says never"),
    pytest.param("Never", "Always", [], 0, True, id="its own always wins over the pod's never"),
    pytest.param("Always", "Never", [], 1, False, id="its own never wins over the pod's always"),
    pytest.param("Always", "OnFailure", [], 0, False, id="its own on-failure, and it succeeded"),
    pytest.param("Never", "OnFailure", [], 1, True, id="its own on-failure, and it failed"),
    pytest.param("Never", "Never", [rule("In", 42, 43)], 42, True, id="a rule names the code"),
    pytest.param("Never", "Never", [rule("In", 42, 43)], 1, False, id="no rule names the code"),
    pytest.param("Never", "Never", [rule("NotIn", 1, 2)], 3, True, id="a rule names every other code"),
    pytest.param("Never", "Never", [rule("NotIn", 1, 2)], 2, False, id="a rule leaves the code out"),
    pytest.param("Never", "Never", [rule("In", 7), rule("In", 8)], 8, True, id="the second rule matches"),
    pytest.param("Never", "Never", [rule("In", 0)], 0, True, id="a rule may name success"),
    pytest.param("Never", "Always", [rule("In", 7)], 8, True, id="without a match the policy decides"),
]


@pytest.mark.parametrize(("pods", "own", "rules", "code", "again"), CASES)
def test_a_main_container(pods: str, own: str, rules: list[dict[str, Any]], code: int, again: bool) -> None:
    life = Life(make_pod({"name": "a", "restartPolicy": own, "restartPolicyRules": rules}, restartPolicy=pods))
    life.bring_up()
    life.started("a")
    actions = life.exited("a", code)
    assert starts(actions) == (["a"] if again else [])
    assert life.state.finished == ("" if again else "Succeeded" if code == 0 else "Failed")


@pytest.mark.parametrize(
    ("own", "rules", "code", "then"),
    [
        pytest.param("Never", [], 1, "", id="never: the pod fails"),
        pytest.param("OnFailure", [], 1, "one", id="on-failure: again, although the pod says never"),
        pytest.param("Never", [rule("In", 1)], 1, "one", id="a rule names the code"),
        pytest.param("Never", [rule("In", 0)], 0, "a", id="success is success, whatever a rule says"),
    ],
)
def test_an_init_container(own: str, rules: list[dict[str, Any]], code: int, then: str) -> None:
    init = {"name": "one", "restartPolicy": own, "restartPolicyRules": rules}
    life = Life(make_pod("a", init=[init], restartPolicy="Never"))
    life.bring_up()
    life.started("one")
    assert starts(life.exited("one", code)) == ([then] if then else [])
    assert life.state.finished == ("" if then else "Failed")


def test_a_main_container_with_its_own_always_is_no_sidecar() -> None:
    life = Life(make_pod({"name": "a", "restartPolicy": "Always"}, "b", restartPolicy="Never"))
    life.bring_up()
    life.started("a")
    life.started("b")
    assert life.exited("b", 1) == []
    assert life.state.finished == ""
    assert life.status().phase == "Running"
    assert starts(life.exited("a", 0)) == ["a"]


def test_a_restart_by_rule_is_held_back_like_any_other() -> None:
    life = Life(make_pod({"name": "a", "restartPolicy": "Never", "restartPolicyRules": [rule("In", 42)]}))
    life.bring_up()
    life.started("a")
    life.exited("a", 42)
    life.started("a")
    assert starts(life.exited("a", 42)) == []
    assert life.wake_at == life.now + 10
    assert life.state.record("a").attempt == 1


def test_sidecars_stop_one_by_one_in_reverse_after_everything_else() -> None:
    def side(name: str) -> dict[str, Any]:
        return {"name": name, "restartPolicy": "Always"}

    life = Life(make_pod("a", "b", init=[side("s1"), "i", side("s2")], restartPolicy="Never"))
    assert starts(life.bring_up()) == ["s1"]
    assert starts(life.started("s1")) == ["i"]
    life.started("i")
    assert starts(life.exited("i")) == ["s2"]
    assert starts(life.started("s2")) == ["a", "b"]
    life.started("a")
    life.started("b")
    assert stops(life.exited("a")) == []
    assert stops(life.exited("b", after_s=1)) == [("s2", 30.0)]
    assert stops(life.exited("s2", after_s=10)) == [("s1", 20.0)]
    assert life.exited("s1") == [RemoveSandbox()]


def test_the_deadline_counts_from_the_start_that_was_published() -> None:
    pod = make_pod("a", activeDeadlineSeconds=60, status={"startTime": "2027-01-15T07:59:30Z"})
    life = Life(pod)  # a node that has forgotten the pod, 30 s later
    life.bring_up()
    life.started("a")
    assert life.wake_at == life.now + 30


def test_termination_messages_share_twelve_kibibytes() -> None:
    life = Life(make_pod("a", "b", restartPolicy="Never"))
    life.bring_up()
    life.started("a")
    life.step(
        ContainerExited(
            name="a", container_id="a-0", exit_code=1, reason="Error", message="ü" * 8000, started_at=1.0, at=life.now
        )
    )
    ended = life.status().container_statuses[0].state.terminated
    assert ended is not None
    assert ended.message == "ü" * 3072


def test_an_evicted_pod_dies_at_once_and_says_why() -> None:
    life = Life(make_pod("a", "b"))
    life.bring_up()
    life.started("a")
    life.started("b")
    event = PodMustEnd(reason="Evicted", message="too big", grace_s=0.0)
    assert stops(life.step(event)) == [("a", 0.0), ("b", 0.0)]
    life.exited("a", 137)
    life.exited("b", 137)
    status = life.status()
    assert (status.phase, status.reason, status.message) == ("Failed", "Evicted", "too big")
    target = status.condition("DisruptionTarget")
    assert target is not None
    assert (target.status, target.reason) == ("True", "TerminationByKubelet")


def test_a_pod_ends_for_the_first_reason_only() -> None:
    life = Life(make_pod("a"))
    life.bring_up()
    life.step(PodMustEnd(reason="OutOfcpu", message="no"), PodMustEnd(reason="Evicted", message="too big"))
    assert life.state.ended == "OutOfcpu"
    assert life.status().condition("DisruptionTarget") is None
