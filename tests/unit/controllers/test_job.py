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
from pilotage.controllers.job.core import FINALIZER, parse_indexes, plan, render_indexes


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
    assert not made.status.conditions
    made = ended(made, [member("a", "Succeeded", held=False)])
    assert [condition.type for condition in made.status.conditions] == ["Complete"]
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
