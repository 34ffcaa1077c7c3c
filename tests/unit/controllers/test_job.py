"""Counting finished pods once, and ending."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controllers.conftest import NOW, ago, make_pod

from pilotage.api.batch_v1 import Job
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Pod
from pilotage.controllers.job.core import FINALIZER, new_pod, plan
from pilotage.controllers.job.indexes import INDEX, parse_indexes, render_indexes
from pilotage.controllers.job.policies import FAILURES


def job(status: Any = None, **spec: Any) -> Job:
    metadata = {"name": "sum", "namespace": "default", "uid": "uid-sum"}
    return convert(Job, {"metadata": metadata, "spec": spec, "status": status or {}})


def member(name: str, phase: str = "Running", *, held: bool = True, **wish: Any) -> Pod:
    return make_pod(name, phase=phase, finalizers=(FINALIZER,) if held else (), **wish)


def test_a_success_is_counted_in_two_steps() -> None:
    made = job(completions=2)
    first = plan(made, [member("a", "Succeeded")], NOW)
    assert first.status.uncounted_terminated_pods.succeeded == ("uid-a",)
    assert first.status.succeeded == 0
    assert [pod.metadata.name for pod in first.release] == ["a"]
    made = msgspec.structs.replace(made, status=first.status)
    # The release did not happen: nothing is lost and nothing is counted.
    assert plan(made, [member("a", "Succeeded")], NOW).status.succeeded == 0
    second = plan(made, [member("a", "Succeeded", held=False)], NOW)
    assert second.status.succeeded == 1
    assert second.status.uncounted_terminated_pods.succeeded == ()
    made = msgspec.structs.replace(made, status=second.status)
    assert plan(made, [member("a", "Succeeded", held=False)], NOW).status.succeeded == 1


@given(st.lists(st.sampled_from(["crash before release", "release", "pod deleted"]), max_size=12))
def test_whatever_happens_a_pod_counts_once(steps: list[str]) -> None:
    made = job(completions=5, parallelism=1)
    pods = [member("a", "Succeeded")]
    for step in steps:
        made = msgspec.structs.replace(made, status=plan(made, pods, NOW).status)
        if step == "release":
            pods = [member("a", "Succeeded", held=False)] if pods else []
        elif step == "pod deleted" and pods and FINALIZER not in pods[0].metadata.finalizers:
            pods = []
        status = plan(made, pods, NOW).status
        assert status.succeeded + len(status.uncounted_terminated_pods.succeeded) == 1


@pytest.mark.parametrize(
    ("spec", "pods", "create", "delete"),
    [
        ({"parallelism": 2, "completions": 5}, [], 2, 0),
        ({"parallelism": 3, "completions": 1}, [], 1, 0),
        ({"parallelism": 2}, [], 2, 0),
        ({"parallelism": 2}, [member("a", "Succeeded"), member("b")], 0, 0),
        ({"parallelism": 1, "completions": 3}, [member("a"), member("b")], 0, 1),
        ({"parallelism": 2, "suspend": True}, [member("a")], 0, 1),
    ],
    ids=["parallelism", "no more than needed", "work queue", "work queue that found its end", "too many", "suspended"],
)
def test_how_many_run(spec: Any, pods: list[Pod], create: int, delete: int) -> None:
    step = plan(job(**spec), pods, NOW)
    assert (len(step.create), len(step.delete)) == (create, delete)


def test_a_failure_is_retried_after_a_growing_wait() -> None:
    state = {"terminated": {"exitCode": 1, "finishedAt": ago(4)}}
    failed = convert(
        Pod,
        {
            "metadata": {"name": "a", "uid": "uid-a", "finalizers": [FINALIZER]},
            "status": {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}]},
        },
    )
    step = plan(job(), [failed], NOW)
    assert step.create == ()
    assert step.check_after_s == 6.0
    assert len(plan(job(), [failed], NOW + timedelta(seconds=6)).create) == 1


def ended(made: Job, pods: list[Pod]) -> Job:
    return msgspec.structs.replace(made, status=plan(made, pods, NOW).status)


def test_the_verdict_comes_after_the_last_count() -> None:
    made = job(completions=1)
    pods = [member("a", "Succeeded")]
    made = ended(made, pods)
    assert [condition.type for condition in made.status.conditions] == ["SuccessCriteriaMet"]
    made = ended(made, [member("a", "Succeeded", held=False)])
    assert [condition.type for condition in made.status.conditions] == ["SuccessCriteriaMet", "Complete"]
    assert (made.status.succeeded, made.status.active) == (1, 0)
    assert made.status.completion_time


def test_failing_ends_what_still_runs() -> None:
    step = plan(job(backoffLimit=0, parallelism=2, completions=2), [member("a", "Failed"), member("b")], NOW)
    assert [pod.metadata.name for pod in step.delete] == ["b"]
    assert step.create == ()


def test_a_deadline_ends_the_job() -> None:
    made = job({"startTime": ago(61)}, activeDeadlineSeconds=60)
    step = plan(made, [], NOW)
    assert step.status.conditions[0].reason == "DeadlineExceeded"
    assert plan(job({"startTime": ago(20)}, activeDeadlineSeconds=60), [member("a")], NOW).check_after_s == 40.0


def test_indexes_fill_gaps() -> None:
    made = job({"completedIndexes": "0,3"}, completionMode="Indexed", completions=5, parallelism=3)
    busy = member("b", annotations={"batch.kubernetes.io/job-completion-index": "1"})
    assert plan(made, [busy], NOW).create == (2, 4)


@given(st.sets(st.integers(0, 200)))
def test_index_text_round_trips(indexes: set[int]) -> None:
    assert parse_indexes(render_indexes(indexes)) == indexes


def failed_pod(name: str, code: int = 1, *, index: int | None = None, failures: int = 0, **status: Any) -> Pod:
    annotations = {} if index is None else {INDEX: str(index), FAILURES: str(failures)}
    state = {"terminated": {"exitCode": code, "finishedAt": ago(100_000)}}
    return convert(
        Pod,
        {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "finalizers": [FINALIZER],
                "annotations": annotations,
            },
            "status": {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}], **status},
        },
    )


def policy(action: str, *codes: int, operator: str = "In") -> dict[str, Any]:
    return {"rules": [{"action": action, "onExitCodes": {"operator": operator, "values": list(codes)}}]}


DISRUPTED = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}

POLICIES = [
    pytest.param(policy("FailJob", 42), failed_pod("a", 42), ("PodFailurePolicy", 0), id="fails at once"),
    pytest.param(policy("FailJob", 42), failed_pod("a", 1), ("", 1), id="another code is counted"),
    pytest.param(policy("FailJob", 1, operator="NotIn"), failed_pod("a", 7), ("PodFailurePolicy", 0), id="not in"),
    pytest.param(policy("Ignore", 42), failed_pod("a", 42), ("", 0), id="ignored"),
    pytest.param(policy("Count", 42), failed_pod("a", 42), ("", 1), id="counted by rule"),
    pytest.param(
        DISRUPTED,
        failed_pod("a", conditions=[{"type": "DisruptionTarget", "status": "True"}]),
        ("", 0),
        id="a disruption is ignored",
    ),
    pytest.param(DISRUPTED, failed_pod("a"), ("", 1), id="without the condition it counts"),
]


@pytest.mark.parametrize(("rules", "pod", "answer"), POLICIES)
def test_failure_policies(rules: Any, pod: Pod, answer: tuple[str, int]) -> None:
    step = plan(job(podFailurePolicy=rules, backoffLimit=5), [pod], NOW)
    reasons = [condition.reason for condition in step.status.conditions]
    assert reasons == ([answer[0]] if answer[0] else [])
    if not reasons:
        assert len(step.status.uncounted_terminated_pods.failed) == answer[1]
        assert [item.metadata.name for item in step.release] == ["a"]
        assert len(step.create) == 1


def test_a_failed_job_names_the_rule_and_the_container() -> None:
    step = plan(job(podFailurePolicy=policy("FailJob", 42)), [failed_pod("a", 42)], NOW)
    assert step.status.conditions[0].message == (
        "Container main for pod default/a failed with exit code 42 matching FailJob rule at index 0"
    )
    assert [(c.type, c.reason) for c in step.status.conditions] == [("FailureTarget", "PodFailurePolicy")]


def test_the_verdict_stands_while_pods_leave() -> None:
    made = job(podFailurePolicy=policy("FailJob", 42), parallelism=2, completions=2)
    pods = [failed_pod("a", 42), member("b")]
    step = plan(made, pods, NOW)
    assert [pod.metadata.name for pod in step.delete] == ["b"]
    made = msgspec.structs.replace(made, status=step.status)
    leaving = member("b", deleting=True, held=False)
    made = ended(made, [leaving])
    assert [c.type for c in made.status.conditions] == ["FailureTarget"]  # b has not ended yet
    made = ended(made, [])
    assert [(c.type, c.reason) for c in made.status.conditions] == [
        ("FailureTarget", "PodFailurePolicy"),
        ("Failed", "PodFailurePolicy"),
    ]


INDEXED: dict[str, Any] = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": 2**31 - 1}


def test_failures_are_limited_by_index() -> None:
    made = job(backoffLimitPerIndex=1, **INDEXED)
    first = failed_pod("a", index=1)
    step = plan(made, [first], NOW)
    assert (step.create, step.status.failed_indexes) == ((0, 1, 2), "")
    assert step.release == ()  # it alone remembers the failure
    assert new_pod(made, 1, [first])["metadata"]["annotations"][FAILURES] == "1"
    assert new_pod(made, 0, [first])["metadata"]["annotations"][FAILURES] == "0"
    retried = member("b", annotations={INDEX: "1", FAILURES: "1"})
    assert [pod.metadata.name for pod in plan(made, [first, retried], NOW).release] == ["a"]
    step = plan(made, [failed_pod("b", index=1, failures=1)], NOW)
    assert (step.create, step.status.failed_indexes) == ((0, 2), "1")
    assert [pod.metadata.name for pod in step.release] == ["b"]


def test_one_failed_index_fails_the_job_at_its_end_or_beyond_the_limit() -> None:
    status = {"completedIndexes": "0,2", "failedIndexes": "1", "succeeded": 2}
    step = plan(job(status, backoffLimitPerIndex=0, **INDEXED), [], NOW)
    assert [c.reason for c in step.status.conditions] == ["FailedIndexes", "FailedIndexes"]
    many = plan(job({"failedIndexes": "0,1"}, backoffLimitPerIndex=0, maxFailedIndexes=1, **INDEXED), [], NOW)
    assert many.status.conditions[0].reason == "MaxFailedIndexesExceeded"


def test_a_rule_fails_an_index_at_once() -> None:
    made = job(backoffLimitPerIndex=6, podFailurePolicy=policy("FailIndex", 9), **INDEXED)
    step = plan(made, [failed_pod("a", 9, index=2), failed_pod("b", 1, index=0)], NOW)
    assert step.status.failed_indexes == "2"
    assert step.create == (0, 1)


SUCCESSES = [
    pytest.param([{"succeededIndexes": "0-1"}], "0,1", True, id="all that are named"),
    pytest.param([{"succeededIndexes": "0-1"}], "0,2", False, id="another does not help"),
    pytest.param([{"succeededIndexes": "0-2", "succeededCount": 1}], "2", True, id="some of those named"),
    pytest.param([{"succeededCount": 2}], "1-2", True, id="any of all"),
    pytest.param([{"succeededIndexes": "0"}, {"succeededCount": 2}], "1,2", True, id="the second rule"),
]


@pytest.mark.parametrize(("rules", "done", "enough"), SUCCESSES)
def test_success_policies(rules: Any, done: str, enough: bool) -> None:
    made = job({"completedIndexes": done}, successPolicy={"rules": rules}, **INDEXED)
    step = plan(made, [member("x", annotations={INDEX: "0"})], NOW)
    assert [c.reason for c in step.status.conditions] == (["SuccessPolicy"] if enough else [])
    assert [pod.metadata.name for pod in step.delete] == (["x"] if enough else [])
    if enough:
        made = msgspec.structs.replace(made, status=step.status)
        gone = plan(made, [member("x", annotations={INDEX: "0"}, deleting=True)], NOW)
        assert gone.status.uncounted_terminated_pods.failed == ()  # ended by us: no failure
        assert [pod.metadata.name for pod in gone.release] == ["x"]
        assert [c.type for c in plan(made, [], NOW).status.conditions] == ["SuccessCriteriaMet", "Complete"]


def test_a_pod_that_leaves_is_replaced_only_when_it_has_ended() -> None:
    made = job(podReplacementPolicy="Failed")
    leaving = member("a", deleting=True)
    step = plan(made, [leaving], NOW)
    assert (step.create, step.status.uncounted_terminated_pods.failed) == ((), ())
    assert len(plan(job(), [leaving], NOW + timedelta(seconds=60)).create) == 1
    assert plan(job(), [leaving], NOW).status.uncounted_terminated_pods.failed == ("uid-a",)


def test_restarts_in_place_count_towards_the_limit() -> None:
    made = job(backoffLimit=2, template={"spec": {"restartPolicy": "OnFailure"}})
    assert plan(made, [member("a", restarts=1)], NOW).status.conditions == ()
    assert plan(made, [member("a", restarts=2)], NOW).status.conditions[0].reason == "BackoffLimitExceeded"


def test_suspending_and_resuming() -> None:
    made = job({"startTime": ago(50)}, suspend=True, activeDeadlineSeconds=10)
    step = plan(made, [member("a")], NOW)
    assert (step.status.start_time, step.status.conditions[0].reason) == ("", "JobSuspended")
    made = msgspec.structs.replace(made, status=step.status)
    step = plan(made, [member("a", deleting=True)], NOW)
    assert [pod.metadata.name for pod in step.release] == ["a"]
    assert step.status.uncounted_terminated_pods.failed == ()
    resumed = msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, suspend=False))
    step = plan(resumed, [], NOW)
    assert (step.status.start_time, len(step.create)) == (ago(0), 1)  # the clock of the deadline starts anew
    assert [(c.type, c.status, c.reason) for c in step.status.conditions] == [("Suspended", "False", "JobResumed")]
