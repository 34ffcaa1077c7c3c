"""batch/v1: Job, as far as controllers read it.

Source: Kubernetes 1.36 API reference, batch/v1.
"""

from typing import Any, ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import UID, Condition, LabelSelector, Object


class PodFailurePolicyOnExitCodes(Value):
    operator: str  # In or NotIn
    values: tuple[int, ...] = ()
    container_name: str = ""  # empty: any container


class PodFailurePolicyOnPodCondition(Value):
    type: str
    status: str = "True"


class PodFailurePolicyRule(Value):
    """Either exit codes or conditions; the first rule that matches decides."""

    action: str  # FailJob, FailIndex, Ignore or Count
    on_exit_codes: PodFailurePolicyOnExitCodes | None = None
    on_pod_conditions: tuple[PodFailurePolicyOnPodCondition, ...] = ()


class PodFailurePolicy(Value):
    rules: tuple[PodFailurePolicyRule, ...] = ()


class SuccessPolicyRule(Value):
    """All of `succeeded_indexes`, or `succeeded_count` of them (of all indexes if none are named)."""

    succeeded_indexes: str = ""
    succeeded_count: int | None = None


class SuccessPolicy(Value):
    rules: tuple[SuccessPolicyRule, ...] = ()


class JobSpec(Value):
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    selector: LabelSelector = LabelSelector()
    parallelism: int = 1
    completions: int | None = None  # None: done when any pod succeeded and none is left
    active_deadline_seconds: int | None = None
    backoff_limit: int = 6
    backoff_limit_per_index: int | None = None  # None: failures are counted for the Job as a whole
    max_failed_indexes: int | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    success_policy: SuccessPolicy | None = None
    pod_replacement_policy: str = ""  # TerminatingOrFailed, or Failed: only once the old pod has ended
    managed_by: str = ""  # another controller's name: this one keeps away (KEP-4368)
    ttl_seconds_after_finished: int | None = None
    completion_mode: str = "NonIndexed"
    suspend: bool = False
    manual_selector: bool = False


class UncountedTerminatedPods(Value):
    succeeded: tuple[UID, ...] = ()
    failed: tuple[UID, ...] = ()


class JobStatus(Value):
    conditions: tuple[Condition, ...] = ()
    start_time: str = ""
    completion_time: str = ""
    active: int = 0
    ready: int | None = None
    terminating: int | None = None
    succeeded: int = 0
    failed: int = 0
    completed_indexes: str = ""
    failed_indexes: str = ""
    uncounted_terminated_pods: UncountedTerminatedPods = UncountedTerminatedPods()


class Job(Object):
    api_version: ClassVar[str] = "batch/v1"
    kind: ClassVar[str] = "Job"
    plural: ClassVar[str] = "jobs"

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()
