"""Which values a field may have, as tables: enumerations, ranges, required fields; and the walk that checks them.

Apart from the rules of each kind because these need no code, only a line. Field tables are keyed by the definition they
belong to (its name after `io.k8s.api.`), so a container is checked alike in a Pod and in a Deployment's template.

Source: the API reference of Kubernetes 1.36; the published schema names the values in prose only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.api.schema import Schema
from pilotage.api.schema_problems import Problems

_Object = dict[str, Any]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")
_POLICIES = ("Cluster", "Local")

ENUMERATIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "core.v1.PodSpec": {
        "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        "restartPolicy": ("Always", "OnFailure", "Never"),
        "preemptionPolicy": ("PreemptLowerPriority", "Never"),
    },
    "core.v1.Container": {
        "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
        "terminationMessagePolicy": ("FallbackToLogsOnError", "File"),
    },
    "core.v1.ContainerPort": {"protocol": _PROTOCOLS},
    "core.v1.HTTPGetAction": {"scheme": ("HTTP", "HTTPS")},
    "core.v1.Toleration": {
        "operator": ("Equal", "Exists", "Gt", "Lt"),
        "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    },
    "core.v1.Taint": {"effect": ("NoSchedule", "PreferNoSchedule", "NoExecute")},
    "core.v1.TopologySpreadConstraint": {
        "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
        "nodeAffinityPolicy": ("Honor", "Ignore"),
        "nodeTaintsPolicy": ("Honor", "Ignore"),
    },
    "core.v1.NodeSelectorRequirement": {"operator": ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")},
    "core.v1.SeccompProfile": {"type": ("Localhost", "RuntimeDefault", "Unconfined")},
    "core.v1.PodOS": {"name": ("linux", "windows")},
    "core.v1.EmptyDirVolumeSource": {"medium": ("", "HugePages", "Memory")},
    "core.v1.HostPathVolumeSource": {
        "type": ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
    },
    "core.v1.VolumeMount": {"mountPropagation": ("Bidirectional", "HostToContainer", "None")},
    "core.v1.ServiceSpec": {
        "type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
        "sessionAffinity": ("ClientIP", "None"),
        "externalTrafficPolicy": _POLICIES,
        "internalTrafficPolicy": _POLICIES,
        "ipFamilyPolicy": ("PreferDualStack", "RequireDualStack", "SingleStack"),
        "trafficDistribution": ("PreferClose", "PreferSameNode", "PreferSameZone"),
    },
    "core.v1.ServicePort": {"protocol": _PROTOCOLS},
    "core.v1.EndpointPort": {"protocol": _PROTOCOLS},
    "core.v1.PersistentVolumeClaimSpec": {"volumeMode": ("Block", "Filesystem")},
    "core.v1.PersistentVolumeSpec": {
        "volumeMode": ("Block", "Filesystem"),
        "persistentVolumeReclaimPolicy": ("Delete", "Recycle", "Retain"),
    },
    "core.v1.LimitRangeItem": {"type": ("Container", "PersistentVolumeClaim", "Pod")},
    "discovery.v1.EndpointSlice": {"addressType": ("FQDN", "IPv4", "IPv6")},
    "discovery.v1.EndpointPort": {"protocol": _PROTOCOLS},
    "apps.v1.DeploymentStrategy": {"type": ("Recreate", "RollingUpdate")},
    "apps.v1.DaemonSetUpdateStrategy": {"type": ("OnDelete", "RollingUpdate")},
    "apps.v1.StatefulSetUpdateStrategy": {"type": ("OnDelete", "RollingUpdate")},
    "apps.v1.StatefulSetSpec": {"podManagementPolicy": ("OrderedReady", "Parallel")},
    "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy": {
        "whenDeleted": ("Delete", "Retain"),
        "whenScaled": ("Delete", "Retain"),
    },
    "batch.v1.JobSpec": {
        "completionMode": ("Indexed", "NonIndexed"),
        "podReplacementPolicy": ("Failed", "TerminatingOrFailed"),
    },
    "batch.v1.CronJobSpec": {"concurrencyPolicy": ("Allow", "Forbid", "Replace")},
    "networking.v1.HTTPIngressPath": {"pathType": ("Exact", "ImplementationSpecific", "Prefix")},
    "networking.v1.NetworkPolicyPort": {"protocol": _PROTOCOLS},
    "networking.v1.NetworkPolicySpec": {"policyTypes": ("Egress", "Ingress")},
    "networking.v1.IngressClassParametersReference": {"scope": ("Cluster", "Namespace")},
    "policy.v1.PodDisruptionBudgetSpec": {"unhealthyPodEvictionPolicy": ("AlwaysAllow", "IfHealthyBudget")},
    "rbac.v1.RoleRef": {"kind": ("ClusterRole", "Role")},
    "rbac.v1.Subject": {"kind": ("Group", "ServiceAccount", "User")},
    "storage.v1.StorageClass": {
        "reclaimPolicy": ("Delete", "Retain"),
        "volumeBindingMode": ("Immediate", "WaitForFirstConsumer"),
    },
    "meta.v1.LabelSelectorRequirement": {"operator": _OPERATORS},
}  # fmt: skip

_PORT = (1, 65535)
_COUNT = (0, None)
_POSITIVE = (1, None)

RANGES: Mapping[str, Mapping[str, tuple[int, int | None]]] = {
    "core.v1.PodSpec": {"activeDeadlineSeconds": (1, 2**31 - 1), "terminationGracePeriodSeconds": _COUNT},
    "core.v1.ContainerPort": {"containerPort": _PORT, "hostPort": _PORT},
    "core.v1.Probe": {
        "initialDelaySeconds": _COUNT,
        "timeoutSeconds": _COUNT,
        "periodSeconds": _COUNT,
        "successThreshold": _COUNT,
        "failureThreshold": _COUNT,
        "terminationGracePeriodSeconds": _POSITIVE,
    },
    "core.v1.GRPCAction": {"port": _PORT},
    "core.v1.TopologySpreadConstraint": {"maxSkew": _POSITIVE, "minDomains": _POSITIVE},
    "core.v1.PreferredSchedulingTerm": {"weight": (1, 100)},
    "core.v1.WeightedPodAffinityTerm": {"weight": (1, 100)},
    "core.v1.ConfigMapVolumeSource": {"defaultMode": (0, 0o777)},
    "core.v1.SecretVolumeSource": {"defaultMode": (0, 0o777)},
    "core.v1.ProjectedVolumeSource": {"defaultMode": (0, 0o777)},
    "core.v1.DownwardAPIVolumeSource": {"defaultMode": (0, 0o777)},
    "core.v1.KeyToPath": {"mode": (0, 0o777)},
    "core.v1.ServiceAccountTokenProjection": {"expirationSeconds": (600, 2**32)},
    "core.v1.ServicePort": {"port": _PORT, "nodePort": (0, 65535)},
    "core.v1.ClientIPConfig": {"timeoutSeconds": (1, 86400)},
    "core.v1.EndpointPort": {"port": _PORT},
    "core.v1.ReplicationControllerSpec": {"replicas": _COUNT, "minReadySeconds": _COUNT},
    "discovery.v1.EndpointPort": {"port": _PORT},
    "apps.v1.DeploymentSpec": {
        "replicas": _COUNT,
        "minReadySeconds": _COUNT,
        "revisionHistoryLimit": _COUNT,
        "progressDeadlineSeconds": _COUNT,
    },
    "apps.v1.ReplicaSetSpec": {"replicas": _COUNT, "minReadySeconds": _COUNT},
    "apps.v1.StatefulSetSpec": {"replicas": _COUNT, "minReadySeconds": _COUNT, "revisionHistoryLimit": _COUNT},
    "apps.v1.RollingUpdateStatefulSetStrategy": {"partition": _COUNT},
    "apps.v1.DaemonSetSpec": {"minReadySeconds": _COUNT, "revisionHistoryLimit": _COUNT},
    "autoscaling.v1.ScaleSpec": {"replicas": _COUNT},
    "autoscaling.v2.HorizontalPodAutoscalerSpec": {"maxReplicas": _POSITIVE, "minReplicas": _POSITIVE},
    "batch.v1.JobSpec": {
        "completions": _COUNT,
        "parallelism": _COUNT,
        "backoffLimit": _COUNT,
        "activeDeadlineSeconds": _COUNT,
        "ttlSecondsAfterFinished": _COUNT,
    },
    "batch.v1.CronJobSpec": {
        "startingDeadlineSeconds": _COUNT,
        "successfulJobsHistoryLimit": _COUNT,
        "failedJobsHistoryLimit": _COUNT,
    },
    "networking.v1.ServiceBackendPort": {"number": _PORT},
    "networking.v1.NetworkPolicyPort": {"endPort": _PORT},
    "coordination.v1.LeaseSpec": {"leaseDurationSeconds": _POSITIVE, "leaseTransitions": _COUNT},
}

# Fields the schema calls required although Kubernetes takes their zero value.
_ZERO_IS_FINE = frozenset({"integer", "number", "boolean", "any"})
# Metadata has rules of its own; what components report in status is taken as it is.
_ELSEWHERE = frozenset({"metadata", "status"})
_API_PREFIXES = ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.")


@dataclass(slots=True, kw_only=True, eq=False)
class Field:
    """What there is to check in one field."""

    values: tuple[Any, ...] = ()
    bounds: tuple[int, int | None] | None = None
    kind: str = ""  # object, list or map when there is something to check below
    below: Plan | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Plan:
    """What there is to check in one struct and below it, so that the walk looks at nothing else."""

    required: tuple[str, ...]
    fields: dict[str, Field] = field(default_factory=dict)
    building: bool = True

    @property
    def idle(self) -> bool:
        return not (self.building or self.required or self.fields)


def _plan(schema: Schema) -> Plan:
    """The plan of a struct's shape, made once and kept with it."""
    known: Plan | None = schema.plan
    if known is not None:
        return known
    plan = schema.plan = Plan(
        required=tuple(
            name
            for name in schema.required
            if name in schema.properties and schema.properties[name].kind not in _ZERO_IS_FINE
        )
    )
    key = _table_key(schema.definition)
    enumerations, ranges = ENUMERATIONS.get(key, {}), RANGES.get(key, {})
    for name, child in schema.properties.items():
        found = Field(values=enumerations.get(name, child.enum), bounds=ranges.get(name))
        struct = child if child.kind == "object" else child.items
        if struct is not None and struct.kind == "object" and child.kind in ("object", "list", "map"):
            below = _plan(struct)  # Of a cycle the plan is still being built: then it is not idle.
            if not below.idle:
                found.kind, found.below = child.kind, below
        if found.values or found.bounds or found.below:
            plan.fields[name] = found
    plan.building = False
    return plan


def check_values(document: _Object, schema: Schema, problems: Problems) -> None:
    """Check every struct of a document but its metadata and status against the tables."""
    if schema.kind == "object":
        _check_struct(document, _plan(schema), "", problems)


def _check_struct(value: _Object, plan: Plan, path: str, problems: Problems) -> None:
    for name in plan.required:
        if name not in value:
            problems.required(f"{path}.{name}" if path else name)
    fields = plan.fields
    for name, item in value.items():
        found = fields.get(name)
        # Most fields have one plain value out of a few: no path needs to be spelled out for those.
        if found is None or item in found.values or (not path and name in _ELSEWHERE):
            continue
        where = f"{path}.{name}" if path else name
        if found.values:
            _check_enumeration(item, found.values, where, problems)
        if found.bounds is not None and isinstance(item, int):
            lowest, highest = found.bounds
            if not lowest <= item <= (item if highest is None else highest):
                problems.invalid(where, item, range_text(lowest, highest))
        if found.below is not None:
            _check_below(item, found.kind, found.below, where, problems)


def _check_below(value: Any, kind: str, plan: Plan, path: str, problems: Problems) -> None:
    if kind == "object":
        _check_struct(value, plan, path, problems)
    elif kind == "list":
        for index, element in enumerate(value):
            _check_struct(element, plan, f"{path}[{index}]", problems)
    else:
        for key, element in value.items():
            _check_struct(element, plan, f"{path}[{key}]", problems)


def _check_enumeration(value: Any, supported: tuple[Any, ...], path: str, problems: Problems) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_enumeration(item, supported, f"{path}[{index}]", problems)
    elif value not in supported:
        problems.unsupported(path, value, map(str, supported))


def _table_key(definition: str) -> str:
    for prefix in _API_PREFIXES:
        if definition.startswith(prefix):
            return definition[len(prefix) :]
    return definition


def range_text(lowest: int, highest: int | None) -> str:
    """Why a number is out of its range."""
    if highest is None:
        return f"must be greater than or equal to {lowest}" if lowest == 0 else "must be greater than 0"
    return f"must be between {lowest} and {highest}, inclusive"
