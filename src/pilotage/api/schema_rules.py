"""Which rules each kind must pass, beyond metadata and the tables of values.

An ordered tuple of functions a kind; each looks at one aspect of a conforming, defaulted document and records what it
finds. Called by `schema_validation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilotage.api import schema_rules_config as config
from pilotage.api import schema_rules_network as network
from pilotage.api import schema_rules_pod as pod
from pilotage.api import schema_rules_storage as storage
from pilotage.api import schema_rules_workload as workload
from pilotage.api.schema_problems import Problems

Rule = Callable[[dict[str, Any], Problems], None]

RULES: Mapping[tuple[str, str], tuple[Rule, ...]] = {
    ("", "Pod"): (pod.pod,),
    ("", "Service"): (
        network.service_ports,
        network.service_type,
        network.service_addresses,
        network.service_policies,
    ),
    ("", "Endpoints"): (network.endpoints,),
    ("discovery.k8s.io", "EndpointSlice"): (network.endpoint_slice,),
    ("networking.k8s.io", "Ingress"): (network.ingress_backends, network.ingress_rules, network.ingress_tls),
    ("networking.k8s.io", "NetworkPolicy"): (network.network_policy,),
    ("networking.k8s.io", "IPAddress"): (network.ip_address,),
    ("networking.k8s.io", "ServiceCIDR"): (network.service_cidr,),
    ("networking.k8s.io", "IngressClass"): (network.ingress_class,),
    ("apps", "Deployment"): (workload.template, workload.deployment),
    ("apps", "ReplicaSet"): (workload.template,),
    ("apps", "StatefulSet"): (workload.template, workload.stateful_set),
    ("apps", "DaemonSet"): (workload.template, workload.daemon_set),
    ("", "ReplicationController"): (workload.replication_controller,),
    ("batch", "Job"): (workload.job,),
    ("batch", "CronJob"): (workload.cron_job,),
    ("policy", "PodDisruptionBudget"): (workload.disruption_budget,),
    ("autoscaling", "HorizontalPodAutoscaler"): (workload.autoscaler,),
    ("", "ConfigMap"): (config.config_map,),
    ("", "Secret"): (config.secret,),
    ("", "Node"): (config.node,),
    ("", "Event"): (config.event,),
    ("", "PersistentVolume"): (storage.volume,),
    ("", "PersistentVolumeClaim"): (storage.claim,),
    ("", "ResourceQuota"): (config.resource_quota,),
    ("", "LimitRange"): (config.limit_range,),
    ("certificates.k8s.io", "CertificateSigningRequest"): (config.signing_request,),
    ("coordination.k8s.io", "Lease"): (config.lease,),
    ("rbac.authorization.k8s.io", "Role"): (config.policy_rules,),
    ("rbac.authorization.k8s.io", "ClusterRole"): (config.policy_rules,),
    ("rbac.authorization.k8s.io", "RoleBinding"): (config.role_binding,),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (config.role_binding,),
    ("events.k8s.io", "Event"): (config.event,),
    ("node.k8s.io", "RuntimeClass"): (config.runtime_class,),
    ("storage.k8s.io", "StorageClass"): (storage.storage_class,),
    ("scheduling.k8s.io", "PriorityClass"): (config.priority_class,),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (config.custom_resource_definition,),
}
