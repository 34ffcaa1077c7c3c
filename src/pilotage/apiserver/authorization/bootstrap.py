"""The roles and bindings every cluster starts with.

Kubernetes' own, for users and for its components, and `system:pilotage:*` for ours: each component gets what it needs
and no more. The server writes them at every start; what administrators added is kept, what they removed comes back,
unless an object is annotated `rbac.authorization.kubernetes.io/autoupdate: "false"`.

Left out: the roles of Kubernetes' single controllers, which here are one identity.

Specification: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pilotage.apiserver.authorization.rbac import GROUP
from pilotage.apiserver.documents import Document

_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}

_READ = ("get", "list", "watch")
_FOLLOW = ("list", "watch")
_CHANGE = ("create", "delete", "deletecollection", "patch", "update")
_PUBLISH = ("create", "patch", "update")
_LEASE = ("create", "get", "update", "patch", "list", "watch")
_ALL = ("*",)


def _rule(verbs: Sequence[str], group: str, *resources: str, names: Sequence[str] = ()) -> Document:
    rule: Document = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}
    if names:
        rule["resourceNames"] = list(names)
    return rule


def _signing(verb: str, *signers: str) -> Document:
    return _rule((verb,), "certificates.k8s.io", "signers", names=[f"kubernetes.io/{signer}" for signer in signers])


def _urls(*paths: str) -> Document:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


_EVENTS = (_rule(_PUBLISH, "", "events"), _rule(_PUBLISH, "events.k8s.io", "events"))
_ENDPOINTS = (_rule(_READ, "", "services", "endpoints", "nodes", "namespaces"),
              _rule(_READ, "discovery.k8s.io", "endpointslices"))  # fmt: skip


# What users may see and change in a namespace.
_VIEWABLE = (
    ("", "bindings", "configmaps", "endpoints", "events", "limitranges", "namespaces", "namespaces/status",
     "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "pods/log", "pods/status",
     "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "resourcequotas",
     "resourcequotas/status", "serviceaccounts", "services", "services/status"),
    ("apps", "controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale",
     "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets",
     "statefulsets/scale", "statefulsets/status"),
    ("autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    ("batch", "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"),
    ("policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
    ("gateway.networking.k8s.io", "*"),
)  # fmt: skip
_CHANGEABLE = (
    ("", "configmaps", "events", "persistentvolumeclaims", "pods", "replicationcontrollers",
     "replicationcontrollers/scale", "secrets", "serviceaccounts", "services"),
    ("", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"),
    ("apps", "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets",
     "replicasets/scale", "statefulsets", "statefulsets/scale"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs", "jobs"),
    ("networking.k8s.io", "ingresses", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("gateway.networking.k8s.io", "gateways", "grpcroutes", "httproutes", "tcproutes", "tlsroutes", "udproutes",
     "referencegrants", "backendtlspolicies"),
)  # fmt: skip

_EDIT = (
    _rule(_READ, "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
    _rule(("impersonate",), "", "serviceaccounts"),
    _rule(("create",), "", "pods/eviction", "serviceaccounts/token"),
    _rule((*_CHANGE, *_READ), "coordination.k8s.io", "leases"),
    *(_rule(_CHANGE, group, *resources) for group, *resources in _CHANGEABLE),
)
_VIEW = tuple(_rule(_READ, group, *resources) for group, *resources in _VIEWABLE)
_ADMIN = (
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule((*_CHANGE, *_READ), GROUP, "rolebindings", "roles"),
)

_DISCOVERY_URLS = ("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
                   "/version", "/version/")  # fmt: skip

_ROLES: dict[str, tuple[Document, ...]] = {
    "cluster-admin": (_rule(_ALL, "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}),
    "system:discovery": (_urls(*_DISCOVERY_URLS),),
    "system:public-info-viewer": (_urls("/healthz", "/livez", "/readyz", "/version", "/version/"),),
    "system:monitoring": (
        _urls("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"),
    ),
    "system:service-account-issuer-discovery": (_urls("/.well-known/openid-configuration", "/openid/v1/jwks"),),
    "system:basic-user": (
        _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ),
    "system:auth-delegator": (
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ),
    "system:node": (
        _rule(("create", "get", "list", "watch"), "", "nodes"),
        _rule(("patch", "update"), "", "nodes", "nodes/status"),
        _rule(("create", "delete"), "", "pods"),  # reading its own is the node authoriser's
        _rule(("patch", "update"), "", "pods/status"),
        _rule(("create",), "", "pods/eviction"),
        _rule(_READ, "", "services"),
        _rule(("create", *_READ), "certificates.k8s.io", "certificatesigningrequests"),
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews", "subjectaccessreviews"),
        _rule(_READ, "node.k8s.io", "runtimeclasses"),
        _rule(("get",), "storage.k8s.io", "volumeattachments"),
        _rule(_READ, "storage.k8s.io", "csidrivers"),
        _rule((*_CHANGE, "get"), "storage.k8s.io", "csinodes"),
        *_EVENTS,
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        _rule(("create",), "certificates.k8s.io", "certificatesigningrequests/nodeclient"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        _rule(("create",), "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),
    ),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (_signing("approve", "kube-apiserver-client"),),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (
        _signing("approve", "kube-apiserver-client-kubelet"),
    ),
    "system:certificates.k8s.io:kubelet-serving-approver": (_signing("approve", "kubelet-serving"),),
    "system:certificates.k8s.io:legacy-unknown-approver": (_signing("approve", "legacy-unknown"),),
    "system:node-bootstrapper": (
        _rule(("create", *_READ), "certificates.k8s.io", "certificatesigningrequests"),
    ),
    "system:node-proxier": (*_ENDPOINTS, _rule(_READ, "networking.k8s.io", "servicecidrs"), *_EVENTS),
    "system:kube-scheduler": (
        *_EVENTS,
        _rule(_LEASE, "coordination.k8s.io", "leases"),
        _rule(_READ, "", "nodes", "namespaces", "replicationcontrollers", "services", "persistentvolumeclaims",
              "persistentvolumes"),
        _rule((*_READ, "delete"), "", "pods"),
        _rule(("create",), "", "bindings", "pods/binding"),
        _rule(("patch", "update"), "", "pods/status"),
        _rule(_READ, "apps", "replicasets", "statefulsets"),
        _rule(_READ, "policy", "poddisruptionbudgets"),
        _rule(_READ, "storage.k8s.io", "csidrivers", "csinodes", "csistoragecapacities", "storageclasses"),
        _rule(_READ, "scheduling.k8s.io", "priorityclasses"),
    ),
    # One identity runs every controller: the garbage collector and the namespace controller reach every kind.
    "system:kube-controller-manager": (
        _rule(("delete", "deletecollection", "get", "list", "patch", "update", "watch"), "*", "*"),
        # Aggregated roles hold what others may do and their writer may not: it only copies.
        _rule(("escalate",), GROUP, "clusterroles"),
        _rule(("create",), "", "configmaps", "endpoints", "namespaces", "persistentvolumeclaims", "pods", "secrets",
              "serviceaccounts", "serviceaccounts/token", "pods/eviction"),
        _rule(("create",), "apps", "controllerrevisions", "replicasets"),
        _rule(("create",), "batch", "jobs"),
        _rule(("create",), "discovery.k8s.io", "endpointslices"),
        _rule(("create",), "coordination.k8s.io", "leases"),
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
        _urls(*_DISCOVERY_URLS),
        *_EVENTS,
    ),
    "system:pilotage:agent": (
        *_ENDPOINTS,
        _rule(_READ, "coordination.k8s.io", "leases"),
        _rule(_READ, "networking.k8s.io", "networkpolicies"),
        *_EVENTS,
    ),
    "system:pilotage:dns": (
        *_ENDPOINTS,
        _rule(_READ, "", "nodes", "pods"),
        _rule(_READ, "networking.k8s.io", "servicecidrs"),
        _rule(_READ, "dns.pilotage.dev", "dnsrecords"),
        _rule(_READ, "multicluster.x-k8s.io", "serviceimports"),
        _rule(("patch", "update"), "dns.pilotage.dev", "dnsrecords/status"),
        *_EVENTS,
    ),
    "system:pilotage:external-dns": (
        _rule(_FOLLOW, "", "services"),
        _rule(_FOLLOW, "networking.k8s.io", "ingresses"),
        _rule(_FOLLOW, "gateway.networking.k8s.io", "gateways", "grpcroutes", "httproutes", "tlsroutes"),
    ),
    "system:pilotage:gateway": (
        *_ENDPOINTS,
        _rule(_READ, "", "configmaps", "pods", "secrets"),
        _rule((*_READ, *_PUBLISH), "networking.k8s.io", "ingressclasses"),
        _rule(_READ, "networking.k8s.io", "ingresses"),
        _rule(("patch", "update"), "networking.k8s.io", "ingresses/status"),
        _rule((*_READ, "patch", "update"), "gateway.networking.k8s.io", "*"),
        _rule(("create",), "gateway.networking.k8s.io", "gatewayclasses"),
        *_EVENTS,
    ),
    "system:pilotage:loadbalancer": (
        *_ENDPOINTS,
        _rule(("patch", "update"), "", "services", "services/status"),
        *_EVENTS,
    ),
}  # fmt: skip

_AGGREGATED: dict[str, tuple[str, tuple[Document, ...]]] = {
    "system:aggregate-to-admin": ("admin", _ADMIN),
    "system:aggregate-to-edit": ("edit", _EDIT),
    "system:aggregate-to-view": ("view", _VIEW),
}
# Each user-facing role holds the ones below it.
_AGGREGATES = {"admin": ("admin",), "edit": ("edit", "admin"), "view": ("view", "edit", "admin")}

_BINDINGS: tuple[tuple[str, str, str], ...] = (
    ("cluster-admin", "Group", "system:masters"),
    ("system:monitoring", "Group", "system:monitoring"),
    ("system:discovery", "Group", "system:authenticated"),
    ("system:basic-user", "Group", "system:authenticated"),
    ("system:public-info-viewer", "Group", "system:authenticated system:unauthenticated"),
    ("system:service-account-issuer-discovery", "Group", "system:serviceaccounts"),
    ("system:node", "Group", "system:nodes"),
    ("system:pilotage:agent", "Group", "system:nodes"),
    ("system:node-proxier", "User", "system:kube-proxy"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
    ("system:pilotage:dns", "User", "system:pilotage:dns"),
    ("system:pilotage:external-dns", "User", "system:pilotage:external-dns"),
    ("system:pilotage:gateway", "User", "system:pilotage:gateway"),
    ("system:pilotage:loadbalancer", "User", "system:pilotage:loadbalancer"),
)

# Consumers publish their watermark as a Lease, and DNS its own endpoints, in this namespace and nowhere else.
_SYSTEM_NAMESPACE = "kube-system"
_CONSUMERS = ("system:kube-proxy", "system:pilotage:dns", "system:pilotage:gateway", "system:pilotage:loadbalancer")


def bootstrap_objects() -> tuple[tuple[str, Document], ...]:
    """Every (plural, document) to have at start, roles before bindings; namespaced ones live in kube-system."""
    objects: list[tuple[str, Document]] = [("clusterroles", _role(name, rules)) for name, rules in _ROLES.items()]
    for name, (target, rules) in _AGGREGATED.items():
        labels = {f"{_AGGREGATE}{above}": "true" for above in _AGGREGATES[target]}
        objects.append(("clusterroles", _role(name, rules, labels)))
    objects += [("clusterroles", _aggregating(name)) for name in _AGGREGATES]
    watermark = (_rule((*_LEASE, "delete"), "coordination.k8s.io", "leases"),)
    endpoints = (_rule((*_READ, *_PUBLISH, "delete"), "discovery.k8s.io", "endpointslices"),)
    objects.append(("roles", _role("system:pilotage:watermark", watermark, namespace=_SYSTEM_NAMESPACE)))
    objects.append(("roles", _role("system:pilotage:dns", endpoints, namespace=_SYSTEM_NAMESPACE)))
    objects += [("clusterrolebindings", _binding(name, kind, names.split())) for name, kind, names in _BINDINGS]
    for name, users in (("system:pilotage:watermark", _CONSUMERS), ("system:pilotage:dns", ("system:pilotage:dns",))):
        objects.append(("rolebindings", _binding(name, "User", users, namespace=_SYSTEM_NAMESPACE)))
    return tuple(objects)


def _metadata(name: str, labels: dict[str, str] | None = None, namespace: str = "") -> Document:
    metadata: Document = {
        "name": name,
        "labels": {**_LABELS, **(labels or {})},
        "annotations": {_AUTOUPDATE: "true"},
    }
    if namespace:
        metadata["namespace"] = namespace
    return metadata


def _role(
    name: str, rules: Iterable[Document], labels: dict[str, str] | None = None, namespace: str = ""
) -> Document:  # fmt: skip
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": _metadata(name, labels, namespace),
        "rules": list(rules),
    }


def _aggregating(name: str) -> Document:
    selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
    # The rules are written out as well, for those who read the role; the authoriser goes by the selector.
    rules = [
        rule for target, listed in _AGGREGATED.values() if name in _AGGREGATES[target] for rule in listed
    ]  # fmt: skip
    return {**_role(name, rules), "aggregationRule": {"clusterRoleSelectors": [selector]}}


def _binding(name: str, kind: str, subjects: Iterable[str], namespace: str = "") -> Document:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _metadata(name, namespace=namespace),
        "subjects": [{"kind": kind, "apiGroup": GROUP, "name": subject} for subject in subjects],
        "roleRef": {"apiGroup": GROUP, "kind": "Role" if namespace else "ClusterRole", "name": name},
    }


def reconciled(existing: Document | None, wanted: Document) -> Document | None:
    """What to write so that an object grants what it must; None when it already does or must be left alone."""
    if existing is None:
        return wanted
    metadata = existing["metadata"]
    if (metadata.get("annotations") or {}).get(_AUTOUPDATE) == "false":
        return None
    changed = dict(existing)
    for field in ("rules", "subjects"):
        if field in wanted:
            kept = existing.get(field) or []
            missing = [item for item in wanted[field] if item not in kept]
            if missing:
                changed[field] = [*kept, *missing]
    if wanted.get("aggregationRule") and existing.get("aggregationRule") != wanted["aggregationRule"]:
        changed["aggregationRule"] = wanted["aggregationRule"]
    labels = {**(metadata.get("labels") or {}), **wanted["metadata"]["labels"]}
    if labels != (metadata.get("labels") or {}):
        changed["metadata"] = {**metadata, "labels": labels}
    return None if changed == existing else changed
