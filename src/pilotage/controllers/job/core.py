"""What a Job does next: count finished pods, create or delete running ones, end.

Fed by `reconciler.py`; pure. What a failure means and when enough has succeeded say `policies.py`. Counting follows
KEP-2307: a finished pod keeps a finalizer until its uid stands in `status.uncountedTerminatedPods`; only then the
finalizer goes; only when that is gone the uid turns into a number. So each step may be repeated and none is lost.
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
from pilotage.controllers.job.indexes import INDEX, index_of, parse_indexes, render_indexes
from pilotage.controllers.job.policies import (
    failed_indexes,
    failure_annotations,
    judge,
    last_failures,
    replaces_only_failed,
    success,
)
from pilotage.kit.backoff import Backoff

FINALIZER = "batch.kubernetes.io/job-tracking"
UID_LABEL = "batch.kubernetes.io/controller-uid"
BURST_MAX = 500  # pods created in one pass, as kube-controller-manager
UNCOUNTED_MAX = 500  # uids kept in the status at a time, as kube-controller-manager

SUCCESS, FAILURE = "SuccessCriteriaMet", "FailureTarget"
_FINAL = {SUCCESS: "Complete", FAILURE: "Failed"}  # what each becomes when the last pod is gone

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
    active = [pod for pod in pods if is_active(pod)]
    terminating = sum(1 for pod in pods if pod.metadata.is_deleting and not is_terminal(pod))
    running = msgspec.structs.replace(
        counted,
        active=len(active),
        ready=sum(1 for pod in active if pod.status.is_ready),
        terminating=terminating,
        start_time="" if job.spec.suspend else job.status.start_time or timestamp.render(now),
    )
    if job.metadata.is_deleting:
        # The garbage collector takes the pods; they must not be held by our finalizer.
        held = tuple(pod for pod in pods if FINALIZER in pod.metadata.finalizers)
        return _plan(running, release=held)
    verdict = ending(job) or _verdict(job, running, pods, now)
    release = _releasable(job, counted, pods, verdict)
    if (ended := finished(job)) is not None:
        wait = _time_to_live_s(job, ended, now)
        return _plan(running, release=release, delete_job=wait == 0, check_after_s=wait or None)
    if verdict is not None:
        return _end(running, verdict, active, release, now)
    if job.spec.suspend:
        suspended = _condition("Suspended", "JobSuspended", "Job suspended", now)
        status = msgspec.structs.replace(running, conditions=with_condition(running.conditions, suspended))
        return _plan(status, release=release, delete=tuple(active))
    return _run(job, running, pods, active, release, now)


def ending(job: Job) -> Condition | None:
    """The condition that says how the Job will end, while its last pods still run (KEP-3329, KEP-3998)."""
    return next((c for c in job.status.conditions if c.type in _FINAL and c.status == "True"), None)


def finished(job: Job) -> Condition | None:
    """The condition that ended the Job, if one did."""
    return next((c for c in job.status.conditions if c.type in ("Complete", "Failed") and c.status == "True"), None)


def selector_of(job: Job) -> Selector | None:
    """The stated selector, or the one that the API gives a Job that states none: its own uid."""
    stated = from_label_selector(job.spec.selector)
    return stated or from_match_labels({UID_LABEL: job.metadata.uid})


def new_pod(job: Job, index: int | None, pods: Iterable[Pod] = ()) -> dict[str, Any]:
    """The document of one of the Job's pods; `pods`: those it has, whose failures an indexed one remembers."""
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
        annotations={
            INDEX: str(index),
            **failure_annotations(job, index, (pod for pod in pods if has_failed(job, pod))),
        },
        finalizers=(FINALIZER,),
        spec=spec,
    )


def _end(
    status: JobStatus, verdict: Condition, active: Sequence[Pod], release: tuple[Pod, ...], now: datetime
) -> Plan:  # fmt: skip
    """First the verdict is written and running pods are ended; once all are gone and counted, it becomes final.

    So the numbers that come with the final condition never change again.
    """
    status = msgspec.structs.replace(status, conditions=with_condition(status.conditions, verdict))
    if active or status.terminating or _pending(status):
        return _plan(status, release=release, delete=tuple(active))
    final = _condition(_FINAL[verdict.type], verdict.reason, verdict.message, now)
    status = msgspec.structs.replace(status, conditions=with_condition(status.conditions, final), active=0, ready=0)
    if final.type == "Complete":
        status = msgspec.structs.replace(status, completion_time=timestamp.render(now))
    return _plan(status, release=release)


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
    verdict = ending(job)
    for pod in pods:
        uid = pod.metadata.uid
        if uid not in held or len(waiting_succeeded) + len(waiting_failed) >= UNCOUNTED_MAX:
            continue
        if pod.status.phase == "Succeeded":
            index = index_of(pod)
            if job.spec.completion_mode == "Indexed":
                # Of two pods of one index only the first counts.
                if index is None or index in indexes:
                    waiting_succeeded.discard(uid)
                    continue
                indexes.add(index)
            else:
                waiting_succeeded.add(uid)
        elif has_failed(job, pod) and not (verdict and verdict.type == SUCCESS) and judge(job, pod).counts:
            waiting_failed.add(uid)
    if job.spec.completion_mode == "Indexed":
        succeeded = len(indexes)
    return msgspec.structs.replace(
        job.status,
        succeeded=succeeded,
        failed=failed,
        completed_indexes=render_indexes(indexes) if job.spec.completion_mode == "Indexed" else "",
        failed_indexes=render_indexes(failed_indexes(job, (pod for pod in pods if has_failed(job, pod))) - indexes),
        uncounted_terminated_pods=UncountedTerminatedPods(
            succeeded=tuple(sorted(waiting_succeeded)), failed=tuple(sorted(waiting_failed))
        ),
    )


def has_failed(job: Job, pod: Pod) -> bool:
    """Whether the pod counts as failed by now.

    One that is being deleted no longer counts on succeeding; but a suspension is nobody's failure, and a Job that
    replaces only failed pods waits for their end, unless they never began or the Job is failing anyway.
    """
    if pod.status.phase in ("Failed", "Succeeded"):
        return pod.status.phase == "Failed"
    if not pod.metadata.is_deleting or job.spec.suspend:
        return False
    return not replaces_only_failed(job) or pod.status.phase in ("", "Pending") or ending(job) is not None


def _releasable(job: Job, counted: JobStatus, pods: Sequence[Pod], verdict: Condition | None) -> tuple[Pod, ...]:
    """Pods that the status accounts for, or that need not be accounted for."""
    uncounted = counted.uncounted_terminated_pods
    written: set[UID] = {*uncounted.succeeded, *uncounted.failed}
    indexes = parse_indexes(counted.completed_indexes)
    over = finished(job) is not None or (verdict is not None and verdict.type == SUCCESS)
    ignored = over or job.spec.suspend
    kept = {pod.metadata.uid for pod in _remembering(job, counted, pods)} if verdict is None else set()

    def may_go(pod: Pod) -> bool:
        if pod.metadata.uid in kept:
            return False
        if pod.metadata.uid in written:
            return True
        if pod.status.phase == "Succeeded" and index_of(pod) in indexes:
            return True
        if pod.status.phase == "Failed" and not judge(job, pod).counts:
            return True
        return ignored and (is_terminal(pod) or pod.metadata.is_deleting)

    return tuple(pod for pod in pods if FINALIZER in pod.metadata.finalizers and may_go(pod))


def _remembering(job: Job, counted: JobStatus, pods: Sequence[Pod]) -> Iterable[Pod]:
    """Failed pods that alone know how often their index has failed, as long as it has no successor (KEP-3850)."""
    if job.spec.backoff_limit_per_index is None:
        return ()
    over = parse_indexes(counted.completed_indexes) | parse_indexes(counted.failed_indexes)
    over |= {index for pod in pods if is_active(pod) and (index := index_of(pod)) is not None}
    last = last_failures(pod for pod in pods if has_failed(job, pod))
    return (pod for index, pod in last.items() if index not in over and index < (job.spec.completions or 0))


def _pending(status: JobStatus) -> bool:
    uncounted = status.uncounted_terminated_pods
    return bool(uncounted.succeeded or uncounted.failed)


def _verdict(job: Job, status: JobStatus, pods: Sequence[Pod], now: datetime) -> Condition | None:
    """How the Job will end, if that is decided now; failure is looked for first."""
    for pod in pods:
        if has_failed(job, pod) and (judgement := judge(job, pod)).action == "FailJob":
            return _condition(FAILURE, "PodFailurePolicy", judgement.message, now)
    uncounted = status.uncounted_terminated_pods
    failures = status.failed + len(uncounted.failed)
    successes = status.succeeded + len(uncounted.succeeded)
    if job.spec.completion_mode == "Indexed":
        successes = status.succeeded
    if failures > job.spec.backoff_limit or _restarted_too_often(job, pods):
        return _condition(
            FAILURE, "BackoffLimitExceeded", "Job has reached the specified backoff limit", now
        )  # fmt: skip
    if _deadline_s(job, status, now) == 0:
        return _condition(FAILURE, "DeadlineExceeded", "Job was active longer than specified deadline", now)
    lost = parse_indexes(status.failed_indexes)
    if job.spec.max_failed_indexes is not None and len(lost) > job.spec.max_failed_indexes:
        message = "Job has exceeded the specified maximal number of failed indexes"
        return _condition(FAILURE, "MaxFailedIndexesExceeded", message, now)
    if job.spec.completion_mode == "Indexed":
        enough = success(job, parse_indexes(status.completed_indexes))
        if enough:
            return _condition(SUCCESS, "SuccessPolicy", enough, now)
        if lost and successes + len(lost) >= (job.spec.completions or 0):
            return _condition(FAILURE, "FailedIndexes", "Job has failed indexes", now)
    if job.spec.completions is None:
        is_complete = successes > 0 and not any(is_active(pod) for pod in pods)
    else:
        is_complete = successes >= job.spec.completions
    if is_complete:
        return _condition(SUCCESS, "CompletionsReached", "Reached expected number of succeeded pods", now)
    return None


def _restarted_too_often(job: Job, pods: Iterable[Pod]) -> bool:
    """Pods that restart their containers in place count by restarts, together."""
    if (job.spec.template.get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.restart_count
        for pod in pods
        if pod.status.phase in ("Pending", "Running")
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    return restarts > 0 if job.spec.backoff_limit == 0 else restarts >= job.spec.backoff_limit


def _condition(type: str, reason: str, message: str, now: datetime) -> Condition:
    return Condition(
        type=type, status="True", reason=reason, message=message, last_transition_time=timestamp.render(now)
    )


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
    done = status.succeeded
    if job.spec.completion_mode != "Indexed":
        done += len(status.uncounted_terminated_pods.succeeded)
    lost = parse_indexes(status.failed_indexes)
    wanted = job.spec.parallelism
    if job.spec.completions is not None:
        wanted = min(wanted, job.spec.completions - done - len(lost))
    elif done:
        wanted = len(active)  # some pod has found the work done: start no more
    wasted = tuple(pod for pod in active if index_of(pod) in lost)
    excess = len(active) - len(wasted) - wanted
    if excess > 0 or wasted:
        youngest = sorted(
            (pod for pod in active if pod not in wasted),
            key=lambda pod: (pod.status.is_ready, pod.status.phase == "Running", pod.metadata.name),
        )
        return _plan(status, release=release, delete=(*wasted, *youngest[: max(excess, 0)]))
    leaving = [pod for pod in pods if pod.metadata.is_deleting and not is_terminal(pod)]
    missing = -excess - (len(leaving) if replaces_only_failed(job) else 0)
    waits = [wait for wait in (_deadline_s(job, status, now),) if wait is not None]
    create: tuple[int | None, ...] = ()
    if job.spec.completion_mode == "Indexed":
        create = _free_indexes(job, status, pods, active, waits, now)[: max(min(missing, BURST_MAX), 0)]
    elif missing > 0:
        wait = _backoff_s(pods, now)
        if wait > 0:
            waits.append(wait)
        else:
            create = (None,) * min(missing, BURST_MAX)
    return _plan(status, release=release, create=create, check_after_s=min(waits, default=None))


def _free_indexes(
    job: Job, status: JobStatus, pods: Sequence[Pod], active: Sequence[Pod], waits: list[float], now: datetime
) -> tuple[int, ...]:
    """Indexes without a pod that may be tried now, lowest first; `waits` receives when the next one may.

    Failures delay their own index alone when they are limited by index, else the whole Job.
    """
    by_index = job.spec.backoff_limit_per_index is not None
    if not by_index and (wait := _backoff_s(pods, now)) > 0:
        waits.append(wait)
        return ()
    busy = {index_of(pod) for pod in active}
    busy |= parse_indexes(status.completed_indexes) | parse_indexes(status.failed_indexes)
    if replaces_only_failed(job):
        busy |= {index_of(pod) for pod in pods if pod.metadata.is_deleting and not is_terminal(pod)}
    ended: dict[int | None, list[Pod]] = {}
    for pod in pods if by_index else ():
        ended.setdefault(index_of(pod), []).append(pod)
    free = []
    for index in range(job.spec.completions or 0):
        if index in busy:
            continue
        wait = _backoff_s(ended.get(index, ()), now)
        if wait > 0:
            waits.append(wait)
        else:
            free.append(index)
    return tuple(free)


def _backoff_s(pods: Iterable[Pod], now: datetime) -> float:
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
