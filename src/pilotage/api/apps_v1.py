"""apps/v1: the workload kinds, as far as controllers read them.

Source: Kubernetes 1.36 API reference, apps/v1.
"""

from typing import Any, ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import Condition, LabelSelector, Object


class WorkloadCondition(Condition):
    """A condition that also says when it was last confirmed (Deployment's progress deadline)."""

    last_update_time: str = ""


class RollingUpdateDeployment(Value):
    max_unavailable: int | str = "25%"
    max_surge: int | str = "25%"


class DeploymentStrategy(Value):
    type: str = "RollingUpdate"
    rolling_update: RollingUpdateDeployment = RollingUpdateDeployment()


class DeploymentSpec(Value):
    selector: LabelSelector = LabelSelector()
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    replicas: int = 1
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10
    paused: bool = False
    progress_deadline_seconds: int = 600


class DeploymentStatus(Value):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: tuple[WorkloadCondition, ...] = ()
    collision_count: int | None = None


class Deployment(Object):
    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "Deployment"
    plural: ClassVar[str] = "deployments"

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class ReplicaSetSpec(Value):
    selector: LabelSelector = LabelSelector()
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    replicas: int = 1
    min_ready_seconds: int = 0


class ReplicaSetStatus(Value):
    observed_generation: int = 0
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: tuple[Condition, ...] = ()


class ReplicaSet(Object):
    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "ReplicaSet"
    plural: ClassVar[str] = "replicasets"

    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class RollingUpdateStatefulSet(Value):
    partition: int = 0
    max_unavailable: int | str | None = None


class StatefulSetUpdateStrategy(Value):
    type: str = "RollingUpdate"
    rolling_update: RollingUpdateStatefulSet = RollingUpdateStatefulSet()


class StatefulSetOrdinals(Value):
    start: int = 0


class StatefulSetPersistentVolumeClaimRetentionPolicy(Value):
    when_deleted: str = "Retain"  # or Delete: claims go with the set
    when_scaled: str = "Retain"  # or Delete: claims go with the pod that scaling removes


class StatefulSetSpec(Value):
    selector: LabelSelector = LabelSelector()
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    service_name: str = ""
    replicas: int = 1
    pod_management_policy: str = "OrderedReady"
    update_strategy: StatefulSetUpdateStrategy = StatefulSetUpdateStrategy()
    revision_history_limit: int = 10
    min_ready_seconds: int = 0
    ordinals: StatefulSetOrdinals = StatefulSetOrdinals()
    volume_claim_templates: tuple[dict[str, Any], ...] = ()  # as written
    persistent_volume_claim_retention_policy: StatefulSetPersistentVolumeClaimRetentionPolicy = (
        StatefulSetPersistentVolumeClaimRetentionPolicy()
    )


class StatefulSetStatus(Value):
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None
    conditions: tuple[Condition, ...] = ()


class StatefulSet(Object):
    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "StatefulSet"
    plural: ClassVar[str] = "statefulsets"

    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


class RollingUpdateDaemonSet(Value):
    max_unavailable: int | str = 1
    max_surge: int | str = 0


class DaemonSetUpdateStrategy(Value):
    type: str = "RollingUpdate"
    rolling_update: RollingUpdateDaemonSet = RollingUpdateDaemonSet()


class DaemonSetSpec(Value):
    selector: LabelSelector = LabelSelector()
    template: dict[str, Any] = {}  # as written: none of it may be lost on its way into pods
    update_strategy: DaemonSetUpdateStrategy = DaemonSetUpdateStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10


class DaemonSetStatus(Value):
    observed_generation: int = 0
    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None
    conditions: tuple[Condition, ...] = ()


class DaemonSet(Object):
    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "DaemonSet"
    plural: ClassVar[str] = "daemonsets"

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class ControllerRevision(Object):
    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "ControllerRevision"
    plural: ClassVar[str] = "controllerrevisions"

    data: dict[str, Any] = {}
    revision: int = 0
