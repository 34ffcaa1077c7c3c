"""What a Job does next: count finished pods, create or delete running ones, end.

Fed by `reconciler.py`; pure. Counting follows KEP-2307: a finished pod keeps a finalizer until its uid stands in
`status.uncountedTerminatedPods`; only then the finalizer goes; only when that is gone the uid turns into a number. So
each step may be repeated and none is lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pilotage.api import timestamp
from pilotage.api.batch_v1 import Job, JobStatus, UncountedTerminatedPods
from pilotage.api.core_v1 import Pod
from pilotage.api.labels import Selector, from_label_selector, from_match_labels
from pilotage.api.meta_v1 import UID, Condition
from pilotage.api.pods import from_template, is_active, is_terminal
from pilotage.api.workloads import with_condition
from pilotage.kit.backoff import Backoff

FINALIZER = "batch.kubernetes.io/job-tracking"
UID_LABEL = "batch.kubernetes.io/controller-uid"
INDEX = "batch.kubernetes.io/job-completion-index"
BURST_MAX = 500  # pods created in one pass, as kube-controller-manager
UNCOUNTED_MAX = 500  # uids kept in the status at a time, as kube-controller-manager

RETRY = Backoff(initial_s=10.0, max_s=600.0)
"""Wait after failed pods, as kube-controller-manager's job backoff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Write `status` first; then release, delete and create, which the status already accounts for."""

    status: JobStatus
    release: tuple[Pod, ...]  # finished pods whose finalizer may go
    delete: tuple[Pod, ...]  # running pods to end
    create: tuple[int | None, ...]  # completion index of each new pod; None in a Job that is not indexed
    delete_job: bool  # its time to live is over
    check_after_s: float | None  # deadline, backoff or time to live; None: no timer


def plan(job: Job, pods: Sequence[Pod], now: datetime) -> Plan:
    """`pods`: those the Job manages."""
    counted = _count(job, pods)
    release = _releasable(job, counted, pods)
    active = [pod for pod in pods if is_active(pod)]
    running = msgspec.structs.replace(
        counted,
        active=len(active),
        ready=sum(1 for pod in active if pod.status.is_ready),
        terminating=sum(1 for pod in pods if pod.metadata.is_deleting and not is_terminal(pod)),
        start_time="" if job.spec.suspend else job.status.start_time or timestamp.render(now),
    )
    if job.metadata.is_deleting:
        # The garbage collector takes the pods; they must not be held by our finalizer.
        held = tuple(pod for pod in pods if FINALIZER in pod.metadata.finalizers)
        return _plan(running, release=held)
    if (ended := finished(job)) is not None:
        wait = _time_to_live_s(job, ended, now)
        return _plan(running, release=release, delete_job=wait == 0, check_after_s=wait or None)
    if (verdict := _verdict(job, running, pods, now)) is not None:
        ending = msgspec.structs.replace(running, active=0, ready=0, conditions=with_condition((), verdict))
        if verdict.type == "Complete":
            ending = msgspec.structs.replace(ending, completion_time=timestamp.render(now))
        # The verdict waits until every finished pod is counted, so that the numbers it comes with are final.
        if _pending(running) or active:
            return _plan(running, release=release, delete=tuple(active))
        return _plan(ending, release=release)
    if job.spec.suspend:
        suspended = Condition(
            type="Suspended",
            status="True",
            reason="JobSuspended",
            message="Job suspended",
            last_transition_time=timestamp.render(now),
        )
        status = msgspec.structs.replace(running, conditions=with_condition(running.conditions, suspended))
        return _plan(status, release=release, delete=tuple(active))
    return _run(job, running, pods, active, release, now)


def finished(job: Job) -> Condition | None:
    """The condition that ended the Job, if one did."""
    return next((c for c in job.status.conditions if c.type in ("Complete", "Failed") and c.status == "True"), None)


def selector_of(job: Job) -> Selector | None:
    """The stated selector, or the one that the API gives a Job that states none: its own uid."""
    stated = from_label_selector(job.spec.selector)
    return stated or from_match_labels({UID_LABEL: job.metadata.uid})


def new_pod(job: Job, index: int | None) -> dict[str, Any]:
    """The document of one of the Job's pods."""
    labels = {"batch.kubernetes.io/job-name": job.metadata.name, "job-name": job.metadata.name}
    if not job.spec.manual_selector:
        labels |= {UID_LABEL: job.metadata.uid, "controller-uid": job.metadata.uid}
    base = f"{job.metadata.name}-"
    if index is None:
        return from_template(job.spec.template, owner=job, generate_name=base, labels=labels, finalizers=(FINALIZER,))
    spec = dict(job.spec.template.get("spec") or {})
    variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
    for group in ("containers", "initContainers"):
        if spec.get(group):
            spec[group] = [{**item, "env": [*(item.get("env") or ()), variable]} for item in spec[group]]
    spec.setdefault("hostname", f"{job.metadata.name}-{index}")
    return from_template(
        job.spec.template,
        owner=job,
        generate_name=f"{base}{index}-",
        labels={**labels, INDEX: str(index)},
        annotations={INDEX: str(index)},
        finalizers=(FINALIZER,),
        spec=spec,
    )


def parse_indexes(text: str) -> set[int]:
    """`0,2-4` → {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def render_indexes(indexes: Iterable[int]) -> str:
    """{0, 2, 3, 4} → `0,2-4`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _plan(
    status: JobStatus,
    *,
    release: tuple[Pod, ...] = (),
    delete: tuple[Pod, ...] = (),
    create: tuple[int | None, ...] = (),
    delete_job: bool = False,
    check_after_s: float | None = None,
) -> Plan:
    return Plan(
        status=status,
        release=release,
        delete=delete,
        create=create,
        delete_job=delete_job,
        check_after_s=check_after_s,
    )


def _count(job: Job, pods: Sequence[Pod]) -> JobStatus:
    """Move uids one step on: finished → uncounted; uncounted and released → counted."""
    uncounted = job.status.uncounted_terminated_pods
    held = {pod.metadata.uid for pod in pods if FINALIZER in pod.metadata.finalizers}
    waiting_succeeded = {uid for uid in uncounted.succeeded if uid in held}
    waiting_failed = {uid for uid in uncounted.failed if uid in held}
    succeeded = job.status.succeeded + len(uncounted.succeeded) - len(waiting_succeeded)
    failed = job.status.failed + len(uncounted.failed) - len(waiting_failed)
    indexes = parse_indexes(job.status.completed_indexes)
    for pod in pods:
        uid = pod.metadata.uid
        if uid not in held or len(waiting_succeeded) + len(waiting_failed) >= UNCOUNTED_MAX:
            continue
        if pod.status.phase == "Succeeded":
            index = _index_of(pod)
            if job.spec.completion_mode == "Indexed":
                # Of two pods of one index only the first counts.
                if index is None or index in indexes:
                    waiting_succeeded.discard(uid)
                    continue
                indexes.add(index)
            else:
                waiting_succeeded.add(uid)
        elif finished(job) is None and (pod.status.phase == "Failed" or _is_lost(job, pod)):
            waiting_failed.add(uid)
    if job.spec.completion_mode == "Indexed":
        succeeded = len(indexes)
    return msgspec.structs.replace(
        job.status,
        succeeded=succeeded,
        failed=failed,
        completed_indexes=render_indexes(indexes) if job.spec.completion_mode == "Indexed" else "",
        uncounted_terminated_pods=UncountedTerminatedPods(
            succeeded=tuple(sorted(waiting_succeeded)), failed=tuple(sorted(waiting_failed))
        ),
    )


def _is_lost(job: Job, pod: Pod) -> bool:
    """A pod that is being deleted no longer counts on succeeding; unless a suspension deleted it, that is a failure."""
    return pod.metadata.is_deleting and not job.spec.suspend


def _releasable(job: Job, counted: JobStatus, pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """Pods that the status accounts for, or that need not be accounted for."""
    uncounted = counted.uncounted_terminated_pods
    written: set[UID] = {*uncounted.succeeded, *uncounted.failed}
    indexes = parse_indexes(counted.completed_indexes)
    ignored = finished(job) is not None or job.spec.suspend

    def may_go(pod: Pod) -> bool:
        if pod.metadata.uid in written:
            return True
        if pod.status.phase == "Succeeded" and _index_of(pod) in indexes:
            return True
        return ignored and (is_terminal(pod) or pod.metadata.is_deleting)

    return tuple(pod for pod in pods if FINALIZER in pod.metadata.finalizers and may_go(pod))


def _pending(status: JobStatus) -> bool:
    uncounted = status.uncounted_terminated_pods
    return bool(uncounted.succeeded or uncounted.failed)


def _verdict(job: Job, status: JobStatus, pods: Sequence[Pod], now: datetime) -> Condition | None:
    """The condition that ends the Job now, if any."""
    uncounted = status.uncounted_terminated_pods
    failures = status.failed + len(uncounted.failed)
    successes = status.succeeded + len(uncounted.succeeded)
    moment = timestamp.render(now)
    if failures > job.spec.backoff_limit:
        return Condition(
            type="Failed",
            status="True",
            reason="BackoffLimitExceeded",
            message="Job has reached the specified backoff limit",
            last_transition_time=moment,
        )
    if _deadline_s(job, status, now) == 0:
        return Condition(
            type="Failed",
            status="True",
            reason="DeadlineExceeded",
            message="Job was active longer than specified deadline",
            last_transition_time=moment,
        )
    if job.spec.completions is None:
        is_complete = successes > 0 and not any(is_active(pod) for pod in pods)
    else:
        is_complete = successes >= job.spec.completions
    if is_complete:
        return Condition(
            type="Complete",
            status="True",
            reason="CompletionsReached",
            message="Reached expected number of succeeded pods",
            last_transition_time=moment,
        )
    return None


def _run(
    job: Job,
    status: JobStatus,
    pods: Sequence[Pod],
    active: Sequence[Pod],
    release: tuple[Pod, ...],
    now: datetime,
) -> Plan:
    """Bring the number of running pods to what is wanted, after the backoff that failures have earned."""
    conditions = tuple(
        msgspec.structs.replace(
            condition,
            status="False",
            reason="JobResumed",
            message="Job resumed",
            last_transition_time=timestamp.render(now),
        )
        if condition.type == "Suspended" and condition.status == "True"
        else condition
        for condition in status.conditions
    )
    status = msgspec.structs.replace(status, conditions=conditions)
    done = status.succeeded + len(status.uncounted_terminated_pods.succeeded)
    wanted = job.spec.parallelism
    if job.spec.completions is not None:
        wanted = min(wanted, job.spec.completions - done)
    elif done:
        wanted = len(active)  # some pod has found the work done: start no more
    excess = len(active) - wanted
    if excess > 0:
        youngest = sorted(
            active, key=lambda pod: (pod.status.is_ready, pod.status.phase == "Running", pod.metadata.name)
        )
        return _plan(status, release=release, delete=tuple(youngest[:excess]))
    waits = [wait for wait in (_deadline_s(job, status, now),) if wait is not None]
    wait = _backoff_s(status, pods, now)
    if excess < 0 and wait > 0:
        return _plan(status, release=release, check_after_s=min([*waits, wait]))
    create: tuple[int | None, ...] = (None,) * min(-excess, BURST_MAX)
    if job.spec.completion_mode == "Indexed":
        busy = {_index_of(pod) for pod in active} | parse_indexes(status.completed_indexes)
        free = (index for index in range(job.spec.completions or 0) if index not in busy)
        create = tuple(index for _, index in zip(create, free, strict=False))
    return _plan(status, release=release, create=create, check_after_s=min(waits, default=None))


def _backoff_s(status: JobStatus, pods: Sequence[Pod], now: datetime) -> float:
    """Seconds to wait since the last failure; failures before the last success do not count."""
    endings = sorted(
        (_ended_at(pod, now), pod.status.phase == "Failed", pod.metadata.name) for pod in pods if is_terminal(pod)
    )
    failures = 0
    for _, failed, _ in reversed(endings):
        if not failed:
            break
        failures += 1
    if not failures:
        return 0.0
    due = endings[-1][0] + timedelta(seconds=RETRY.delay_s(failures))
    return max((due - now).total_seconds(), 0.0)


def _ended_at(pod: Pod, now: datetime) -> datetime:
    texts = [
        status.state.terminated.finished_at
        for status in pod.status.container_statuses
        if status.state.terminated is not None and status.state.terminated.finished_at
    ]
    return max((timestamp.parse(text) for text in texts), default=now)


def _deadline_s(job: Job, status: JobStatus, now: datetime) -> float | None:
    if job.spec.active_deadline_seconds is None or not status.start_time or job.spec.suspend:
        return None
    due = timestamp.parse(status.start_time) + timedelta(seconds=job.spec.active_deadline_seconds)
    return max((due - now).total_seconds(), 0.0)


def _time_to_live_s(job: Job, ended: Condition, now: datetime) -> float | None:
    if job.spec.ttl_seconds_after_finished is None:
        return None
    due = timestamp.parse(ended.last_transition_time) + timedelta(seconds=job.spec.ttl_seconds_after_finished)
    return max((due - now).total_seconds(), 0.0)


def _index_of(pod: Pod) -> int | None:
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdigit() else None
