"""rbac.authorization.k8s.io/v1: ClusterRole, as the loop that aggregates them reads it.

Source: Kubernetes 1.36 API reference, rbac.authorization.k8s.io/v1.
"""

from typing import Any, ClassVar

from pilotage.api.codec import Value
from pilotage.api.meta_v1 import LabelSelector, Object


class AggregationRule(Value):
    cluster_role_selectors: tuple[LabelSelector, ...] = ()


class ClusterRole(Object):
    api_version: ClassVar[str] = "rbac.authorization.k8s.io/v1"
    kind: ClassVar[str] = "ClusterRole"
    plural: ClassVar[str] = "clusterroles"
    namespaced: ClassVar[bool] = False

    aggregation_rule: AggregationRule | None = None
    rules: tuple[dict[str, Any], ...] | None = None  # as on the wire: they are only copied
