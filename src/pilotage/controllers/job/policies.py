"""What a failed pod means, which indexes have failed for good, and whether enough has succeeded.

Stands apart from `core`, which counts and acts: here are the Job's stated policies alone. Source: KEP-3329 (pod failure
policy), KEP-3850 (backoff limit per index), KEP-3998 (success policy), KEP-3939 (replacement only of failed pods).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pilotage.api.batch_v1 import Job, PodFailurePolicyRule
from pilotage.api.core_v1 import ContainerStatus, Pod
from pilotage.controllers.job.indexes import index_of, parse_indexes

FAILURES = "batch.kubernetes.io/job-index-failure-count"
"""On a pod: how many failures of its index counted before it."""

IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one failed pod means for its Job."""

    action: str  # FailJob, FailIndex, Ignore or Count
    message: str  # why, for FailJob

    @property
    def counts(self) -> bool:
        return self.action != "Ignore"


def judge(job: Job, pod: Pod) -> Judgement:
    """The action of the first rule that matches; pods that have not ended by themselves are simply counted."""
    policy = job.spec.pod_failure_policy
    if policy is not None and pod.status.phase == "Failed":
        for number, rule in enumerate(policy.rules):
            why = _match(rule, pod)
            if why:
                return Judgement(action=rule.action, message=f"{why} matching {rule.action} rule at index {number}")
    return Judgement(action="Count", message="")


def replaces_only_failed(job: Job) -> bool:
    """Whether a pod on its way out is neither counted nor replaced until it has ended."""
    return job.spec.pod_failure_policy is not None or job.spec.pod_replacement_policy == "Failed"


def failed_indexes(job: Job, failed: Iterable[Pod]) -> set[int]:
    """Indexes that may not be tried again, those that the status names already included. `failed`: pods that failed."""
    limit = job.spec.backoff_limit_per_index
    if limit is None:
        return set()
    found = parse_indexes(job.status.failed_indexes)
    for pod in failed:
        index = index_of(pod)
        judgement = judge(job, pod)
        if index is None or index >= (job.spec.completions or 0):
            continue
        if judgement.action == "FailIndex" or (judgement.counts and _number(pod, FAILURES) >= limit):
            found.add(index)
    return found


def failure_annotations(job: Job, index: int, failed: Iterable[Pod]) -> dict[str, str]:
    """What the next pod of an index remembers of the failures before it; nothing unless they are limited by index."""
    if job.spec.backoff_limit_per_index is None:
        return {}
    counted, ignored = 0, 0
    for pod in failed:
        if index_of(pod) == index:
            counts = judge(job, pod).counts
            counted = max(counted, _number(pod, FAILURES) + counts)
            ignored = max(ignored, _number(pod, IGNORED_FAILURES) + (not counts))
    found = {FAILURES: str(counted)}
    if ignored:
        found[IGNORED_FAILURES] = str(ignored)
    return found


def last_failures(failed: Iterable[Pod]) -> dict[int, Pod]:
    """Of each index the failed pod that remembers most: it must stay until its successor exists."""
    last: dict[int, Pod] = {}
    for pod in failed:
        index = index_of(pod)
        if index is not None and (index not in last or _remembered(pod) > _remembered(last[index])):
            last[index] = pod
    return last


def success(job: Job, succeeded: Collection[int]) -> str:
    """Why the succeeded indexes are enough by the success policy; empty if they are not."""
    rules = job.spec.success_policy.rules if job.spec.success_policy is not None else ()
    for number, rule in enumerate(rules):
        named = parse_indexes(rule.succeeded_indexes)
        reached = set(succeeded) & named if named else set(succeeded)
        enough = len(named) if rule.succeeded_count is None else rule.succeeded_count
        if enough and len(reached) >= enough:
            return f"Matched rules at index {number}"
    return ""


def _match(rule: PodFailurePolicyRule, pod: Pod) -> str:
    """What of the pod the rule is about; empty if it is not about this pod."""
    codes = rule.on_exit_codes
    if codes is not None:
        for status in (*pod.status.container_statuses, *pod.status.init_container_statuses):
            code = _exit_code(status)
            named = codes.container_name in ("", status.name)
            # Exit code 0 is no failure, so that NotIn never speaks of containers that ended well.
            if named and code and (code in codes.values) == (codes.operator == "In"):
                return f"Container {status.name} for pod {pod.metadata.key} failed with exit code {code}"
        return ""
    for wanted in rule.on_pod_conditions:
        found = pod.status.condition(wanted.type)
        if found is not None and found.status == wanted.status:
            return f"Pod {pod.metadata.key} has condition {wanted.type}"
    return ""


def _exit_code(status: ContainerStatus) -> int:
    return status.state.terminated.exit_code if status.state.terminated is not None else 0


def _number(pod: Pod, annotation: str) -> int:
    text = pod.metadata.annotations.get(annotation, "")
    return int(text) if text.isdigit() else 0


def _remembered(pod: Pod) -> tuple[int, str, str]:
    total = _number(pod, FAILURES) + _number(pod, IGNORED_FAILURES)
    return (total, pod.metadata.creation_timestamp, pod.metadata.name)
