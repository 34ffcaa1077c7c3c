"""policy/v1: PodDisruptionBudget.

Source: Kubernetes 1.36 API reference, policy/v1.
"""

from typing import ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import LabelSelector, Object, ObservedCondition


class PodDisruptionBudgetSpec(Value):
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None


class PodDisruptionBudgetStatus(Value):
    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    disrupted_pods: dict[str, str] = {}
    conditions: tuple[ObservedCondition, ...] = ()


class PodDisruptionBudget(Object):
    api_version: ClassVar[str] = "policy/v1"
    kind: ClassVar[str] = "PodDisruptionBudget"
    plural: ClassVar[str] = "poddisruptionbudgets"

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()
