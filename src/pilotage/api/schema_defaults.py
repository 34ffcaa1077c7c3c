"""The values Kubernetes fills in for fields a client leaves out.

Apart from validation because defaults come first and patches must not see them. The published schema carries no
defaults, so they are one table of small functions, a kind each, over conforming documents (`schema_conform`). Called by
the API server on create and update; documents are changed in place, nothing already set is touched, twice is once.

Left out: values that need other objects or allocation (cluster addresses, service accounts, priorities): admission.

Source: the API reference of Kubernetes 1.36, "Defaults to …" of each field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pilotage.api import quantity
from pilotage.api.catalogue import Resource
from pilotage.api.quotas import pod_total
from pilotage.api.schema import Schema

_Object = dict[str, Any]

_RBAC_GROUP = "rbac.authorization.k8s.io"
_FILE_MODE = 0o644


def default(resource: Resource, document: _Object, *, schema: Schema | None = None) -> None:
    """Fill in what is missing, in place. `schema` is a custom resource's own, None for built-in kinds."""
    defaulter = _DEFAULTERS.get((resource.group, resource.kind))
    if defaulter is not None:
        defaulter(document)
    if schema is not None:
        _default_by_schema(document, schema)


def _default_by_schema(value: Any, schema: Schema) -> None:
    if isinstance(value, dict):
        for name, child in schema.properties.items():
            if name not in value and child.default is not None:
                value[name] = child.default
            if name in value:
                _default_by_schema(value[name], child)
        if schema.kind == "map" and schema.items is not None:
            for item in value.values():
                _default_by_schema(item, schema.items)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            _default_by_schema(item, schema.items)


def _struct(owner: _Object, name: str) -> _Object:
    """The struct field, created when absent, for fields that every object of the kind has."""
    value: _Object = owner.setdefault(name, {})
    return value


def _fill(owner: _Object, **values: Any) -> None:
    for name, value in values.items():
        owner.setdefault(name, value)


# Pods


def containers(pod_spec: _Object) -> Iterator[_Object]:
    """Init, ordinary and ephemeral containers of a pod's spec."""
    for name in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod_spec.get(name) or ()


def _pod(pod: _Object) -> None:
    spec = _struct(pod, "spec")
    for container in containers(spec):
        limits = container.get("resources", {}).get("limits")
        if limits:
            requests = _struct(container["resources"], "requests")
            for name, amount in limits.items():
                requests.setdefault(name, amount)
    _whole_requests(spec)
    spec.setdefault("enableServiceLinks", True)
    _pod_spec(spec)
    if spec.get("hostNetwork"):
        for container in containers(spec):
            for port in container.get("ports") or ():
                port.setdefault("hostPort", port.get("containerPort"))


def _whole_requests(spec: _Object) -> None:
    """A pod that limits itself as a whole requests what its containers do, else its limit (KEP-2837)."""
    limits = (spec.get("resources") or {}).get("limits")
    if not limits:
        return
    requests = _struct(spec["resources"], "requests")
    together = pod_total({**spec, "resources": {}, "overhead": {}}, "requests")
    for name, amount in together.items():
        if name in ("cpu", "memory"):
            requests.setdefault(name, quantity.render(amount, binary=name == "memory"))
    for name, amount in limits.items():
        requests.setdefault(name, amount)


def _pod_spec(spec: _Object) -> None:
    _fill(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30,
          schedulerName="default-scheduler")  # fmt: skip
    spec.setdefault("securityContext", {})
    # `serviceAccount` is the deprecated alias of `serviceAccountName`; both always agree.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in containers(spec):
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: _Object) -> None:
    _fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    container.setdefault("resources", {})
    if "imagePullPolicy" not in container:
        container["imagePullPolicy"] = _pull_policy(container.get("image", ""))
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        reference = variable.get("valueFrom", {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])
    for handler in container.get("lifecycle", {}).values():
        if isinstance(handler, dict):
            _http_get(handler)


def _pull_policy(image: str) -> str:
    """`Always` for the moving tag `latest`, named or implied."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _probe(probe: _Object) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):  # Zero means unset here.
            probe[name] = value
    _http_get(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http_get(handler: _Object) -> None:
    request = handler.get("httpGet")
    if request is not None:
        if not request.get("path"):
            request["path"] = "/"
        if not request.get("scheme"):
            request["scheme"] = "HTTP"


def _volume(volume: _Object) -> None:
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if name in volume:
            volume[name].setdefault("defaultMode", _FILE_MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    if "ephemeral" in volume and "volumeClaimTemplate" in volume["ephemeral"]:
        _claim_spec(_struct(volume["ephemeral"]["volumeClaimTemplate"], "spec"))
    _downward(volume.get("downwardAPI"))
    for source in volume.get("projected", {}).get("sources") or ():
        _downward(source.get("downwardAPI"))
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)


def _downward(source: _Object | None) -> None:
    for item in (source or {}).get("items") or ():
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")


def _template(spec: _Object) -> None:
    template = _struct(spec, "template")
    _struct(template, "metadata")
    _pod_spec(_struct(template, "spec"))


# Workloads


def _deployment(deployment: _Object) -> None:
    spec = _struct(deployment, "spec")
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = _struct(spec, "strategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(_struct(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replica_set(replica_set: _Object) -> None:
    spec = _struct(replica_set, "spec")
    spec.setdefault("replicas", 1)
    if "template" in spec:
        _template(spec)


def _replication_controller(controller: _Object) -> None:
    spec = _struct(controller, "spec")
    labels = spec.get("template", {}).get("metadata", {}).get("labels")
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)
    if labels and not _struct(controller, "metadata").get("labels"):
        controller["metadata"]["labels"] = dict(labels)
    _replica_set(controller)


def _stateful_set(stateful_set: _Object) -> None:
    spec = _struct(stateful_set, "spec")
    _fill(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
    strategy = _struct(spec, "updateStrategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(_struct(strategy, "rollingUpdate"), partition=0)
    _fill(_struct(spec, "persistentVolumeClaimRetentionPolicy"), whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        _fill(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        _claim(claim)
    _template(spec)


def _daemon_set(daemon_set: _Object) -> None:
    spec = _struct(daemon_set, "spec")
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = _struct(spec, "updateStrategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(_struct(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job(job: _Object) -> None:
    _job_spec(_struct(job, "spec"))


def _job_spec(spec: _Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _fill(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False, manualSelector=False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    _template(spec)


def _cron_job(cron_job: _Object) -> None:
    spec = _struct(cron_job, "spec")
    _fill(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    # A template is a pattern: its jobs get their defaults when they are created, only their pods' are filled in here.
    _template(_struct(_struct(spec, "jobTemplate"), "spec"))


def _autoscaler(autoscaler: _Object) -> None:
    spec = _struct(autoscaler, "spec")
    spec.setdefault("minReplicas", 1)
    if autoscaler.get("apiVersion") == "autoscaling/v1":
        return  # it is kept as v2, and completed on the way there
    if not spec.get("metrics"):
        cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
        spec["metrics"] = [{"type": "Resource", "resource": cpu}]


# Services and networking


def _service(service: _Object) -> None:
    spec = _struct(service, "spec")
    _fill(spec, type="ClusterIP", sessionAffinity="None")
    kind = spec["type"]
    if spec["sessionAffinity"] == "ClientIP":
        client = _struct(_struct(spec, "sessionAffinityConfig"), "clientIP")
        client.setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def _endpoints(endpoints: _Object) -> None:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _endpoint_slice(endpoint_slice: _Object) -> None:
    endpoint_slice.setdefault("endpoints", [])
    for port in endpoint_slice.get("ports") or ():
        _fill(port, name="", protocol="TCP")


def _network_policy(policy: _Object) -> None:
    spec = _struct(policy, "spec")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _ingress_class(ingress_class: _Object) -> None:
    parameters = ingress_class.get("spec", {}).get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


# Configuration, storage, policy


def _secret(secret: _Object) -> None:
    secret.setdefault("type", "Opaque")


def _namespace(namespace: _Object) -> None:
    metadata = _struct(namespace, "metadata")
    if metadata.get("name"):
        _struct(metadata, "labels")["kubernetes.io/metadata.name"] = metadata["name"]
    _struct(namespace, "status").setdefault("phase", "Active")


def _node(node: _Object) -> None:
    status = node.get("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _claim(claim: _Object) -> None:
    _claim_spec(_struct(claim, "spec"))
    _struct(claim, "status").setdefault("phase", "Pending")


def _claim_spec(spec: _Object) -> None:
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})


def _volume_object(volume: _Object) -> None:
    spec = _struct(volume, "spec")
    _fill(spec, persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")
    _struct(volume, "status").setdefault("phase", "Pending")


def _storage_class(storage_class: _Object) -> None:
    _fill(storage_class, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _priority_class(priority_class: _Object) -> None:
    priority_class.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _limit_range(limit_range: _Object) -> None:
    for limit in limit_range.get("spec", {}).get("limits") or ():
        if limit.get("type") != "Container":
            continue
        defaults = _struct(limit, "default")
        for name, amount in limit.get("max", {}).items():
            defaults.setdefault(name, amount)
        requests = _struct(limit, "defaultRequest")
        for source in (defaults, limit.get("min", {})):
            for name, amount in source.items():
                requests.setdefault(name, amount)


def _binding(binding: _Object) -> None:
    if "roleRef" in binding and not binding["roleRef"].get("apiGroup"):
        binding["roleRef"]["apiGroup"] = _RBAC_GROUP
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _RBAC_GROUP


def _custom_resource_definition(definition: _Object) -> None:
    spec = _struct(definition, "spec")
    names = _struct(spec, "names")
    if names.get("kind"):
        _fill(names, singular=names["kind"].lower(), listKind=f"{names['kind']}List")
    _struct(spec, "conversion").setdefault("strategy", "None")


def _rule_defaults(rules: Any) -> None:
    for rule in rules or ():
        _fill(rule, scope="*")


def _webhooks(configuration: _Object) -> None:
    for webhook in configuration.get("webhooks") or ():
        _fill(
            webhook,
            failurePolicy="Fail",
            matchPolicy="Equivalent",
            namespaceSelector={},
            objectSelector={},
            timeoutSeconds=10,
        )
        if configuration["kind"] == "MutatingWebhookConfiguration":
            _fill(webhook, reinvocationPolicy="Never")
        service = (webhook.get("clientConfig") or {}).get("service")
        if service is not None:
            _fill(service, port=443)
        _rule_defaults(webhook.get("rules"))


def _matching(constraints: _Object | None) -> None:
    if constraints is not None:
        _fill(constraints, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
        _rule_defaults(constraints.get("resourceRules"))
        _rule_defaults(constraints.get("excludeResourceRules"))


def _admission_policy(policy: _Object) -> None:
    spec = _struct(policy, "spec")
    _fill(spec, failurePolicy="Fail")
    _matching(spec.get("matchConstraints"))


def _admission_binding(binding: _Object) -> None:
    _matching(_struct(binding, "spec").get("matchResources"))


_DEFAULTERS: Mapping[tuple[str, str], Callable[[_Object], None]] = {
    ("", "Endpoints"): _endpoints,
    ("", "LimitRange"): _limit_range,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "PersistentVolume"): _volume_object,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "PodTemplate"): _template,
    ("", "ReplicationController"): _replication_controller,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): _admission_binding,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): _admission_binding,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _custom_resource_definition,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("networking.k8s.io", "IngressClass"): _ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _binding,
    ("rbac.authorization.k8s.io", "RoleBinding"): _binding,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storage.k8s.io", "StorageClass"): _storage_class,
}
