"""Every built-in resource of Kubernetes 1.36: names, kinds, scopes, subresources, schema.

Stands apart because the API server routes by it, discovery prints it, the client builds paths from it, and none of
them should own it. Names, short names and categories are those of kube-apiserver's discovery document; the fields of
each kind are not here but in `schema`. Pure data plus three lookups. It leaves out custom resources: the API server
adds those to its own registry at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NO_COLLECTION = tuple(verb for verb in _ALL if verb != "deletecollection")
_CREATE = ("create",)
_READ_WRITE = ("get", "patch", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subresource:
    """`<resource>/<name>`: `kind` may belong to another group-version than its parent."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str | None = None  # None: the parent's
    version: str | None = None  # None: the parent's


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource at one group-version. `group` is "" for core; `schema` names the definition of its kind."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    schema: str
    verbs: tuple[str, ...] = _ALL
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`, as an object of this kind carries it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """The kind of a collection of it."""
        return f"{self.kind}List"

    @property
    def group_resource(self) -> str:
        """`pods` or `deployments.apps`, as error messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def stored(self) -> bool:
        """False for resources that only answer a question, such as TokenReview."""
        return "get" in self.verbs

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection, an object, or its subresource; `namespace` None spans all of them."""
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def subresource(self, name: str) -> Subresource | None:
        """The subresource called `name`, or None."""
        return next((item for item in self.subresources if item.name == name), None)


def _status(kind: str) -> Subresource:
    return Subresource(name="status", kind=kind, verbs=_READ_WRITE)


_SCALE = Subresource(name="scale", kind="Scale", group="autoscaling", version="v1", verbs=_READ_WRITE)
_CONNECT = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")

_POD = (
    Subresource(name="attach", kind="PodAttachOptions", verbs=_CONNECT),
    Subresource(name="binding", kind="Binding", verbs=_CREATE),
    Subresource(name="ephemeralcontainers", kind="Pod", verbs=_READ_WRITE),
    Subresource(name="eviction", kind="Eviction", group="policy", version="v1", verbs=_CREATE),
    Subresource(name="exec", kind="PodExecOptions", verbs=_CONNECT),
    Subresource(name="log", kind="Pod", verbs=("get",)),
    Subresource(name="portforward", kind="PodPortForwardOptions", verbs=_CONNECT),
    Subresource(name="proxy", kind="PodProxyOptions", verbs=_PROXY),
    Subresource(name="resize", kind="Pod", verbs=_READ_WRITE),
    _status("Pod"),
)
_NODE = (Subresource(name="proxy", kind="NodeProxyOptions", verbs=_PROXY),)
_SERVICE = (Subresource(name="proxy", kind="ServiceProxyOptions", verbs=_PROXY),)
_NAMESPACE = (
    Subresource(name="finalize", kind="Namespace", verbs=("update",)),
    _status("Namespace"),
)
_SERVICE_ACCOUNT = (
    Subresource(name="token", kind="TokenRequest", group="authentication.k8s.io", version="v1", verbs=_CREATE),
)
_SIGNING_REQUEST = (
    Subresource(name="approval", kind="CertificateSigningRequest", verbs=_READ_WRITE),
    _status("CertificateSigningRequest"),
)

# The package of a kind's definition where it is not `io.k8s.api.<first label of the group>`.
_SCHEMA_PACKAGES = {
    "": "io.k8s.api.core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "flowcontrol.apiserver.k8s.io": "io.k8s.api.flowcontrol",
    "rbac.authorization.k8s.io": "io.k8s.api.rbac",
}


def _plural(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith(("s", "ss", "x")):
        return lower if lower.endswith("endpoints") else lower + "es"
    if lower.endswith("y") and lower[-2] not in "aeiou":
        return lower[:-1] + "ies"
    return lower + "s"


def _resource(
    group_version: str,
    kind: str,
    *subresources: Subresource,
    cluster: bool = False,
    short: str = "",
    categories: str = "",
    status: bool = False,
    scale: bool = False,
    verbs: tuple[str, ...] = _ALL,
) -> Resource:
    group, _, version = group_version.rpartition("/")
    package = _SCHEMA_PACKAGES.get(group) or f"io.k8s.api.{group.split('.')[0]}"
    extra = (*((_SCALE,) if scale else ()), *((_status(kind),) if status else ()))
    return Resource(
        group=group,
        version=version,
        plural=_plural(kind),
        singular=kind.lower(),
        kind=kind,
        namespaced=not cluster,
        schema=f"{package}.{version}.{kind}",
        verbs=verbs,
        short_names=tuple(short.split()),
        categories=tuple(categories.split()),
        subresources=(*subresources, *extra),
    )


_r = _resource
# Groups in the order of kube-apiserver's priorities: `kubectl get events` must mean core's.
BUILTIN: tuple[Resource, ...] = (
    _r("v1", "Binding", verbs=_CREATE),
    _r("v1", "ConfigMap", short="cm"),
    _r("v1", "Endpoints", short="ep"),
    _r("v1", "Event", short="ev"),
    _r("v1", "LimitRange", short="limits"),
    _r("v1", "Namespace", *_NAMESPACE, cluster=True, short="ns", verbs=_NO_COLLECTION),
    _r("v1", "Node", *_NODE, cluster=True, short="no", status=True),
    _r("v1", "PersistentVolumeClaim", short="pvc", status=True),
    _r("v1", "PersistentVolume", cluster=True, short="pv", status=True),
    _r("v1", "Pod", *_POD, short="po", categories="all"),
    _r("v1", "PodTemplate"),
    _r("v1", "ReplicationController", short="rc", categories="all", scale=True, status=True),
    _r("v1", "ResourceQuota", short="quota", status=True),
    _r("v1", "Secret"),
    _r("v1", "ServiceAccount", *_SERVICE_ACCOUNT, short="sa"),
    _r("v1", "Service", *_SERVICE, short="svc", categories="all", status=True),
    _r("apiregistration.k8s.io/v1", "APIService", cluster=True, categories="api-extensions", status=True),
    _r("apps/v1", "ControllerRevision"),
    _r("apps/v1", "DaemonSet", short="ds", categories="all", status=True),
    _r("apps/v1", "Deployment", short="deploy", categories="all", scale=True, status=True),
    _r("apps/v1", "ReplicaSet", short="rs", categories="all", scale=True, status=True),
    _r("apps/v1", "StatefulSet", short="sts", categories="all", scale=True, status=True),
    _r("events.k8s.io/v1", "Event", short="ev"),
    _r("authentication.k8s.io/v1", "SelfSubjectReview", cluster=True, verbs=_CREATE),
    _r("authentication.k8s.io/v1", "TokenReview", cluster=True, verbs=_CREATE),
    _r("authorization.k8s.io/v1", "LocalSubjectAccessReview", verbs=_CREATE),
    _r("authorization.k8s.io/v1", "SelfSubjectAccessReview", cluster=True, verbs=_CREATE),
    _r("authorization.k8s.io/v1", "SelfSubjectRulesReview", cluster=True, verbs=_CREATE),
    _r("authorization.k8s.io/v1", "SubjectAccessReview", cluster=True, verbs=_CREATE),
    _r("autoscaling/v2", "HorizontalPodAutoscaler", short="hpa", categories="all", status=True),
    _r("autoscaling/v1", "HorizontalPodAutoscaler", short="hpa", categories="all", status=True),
    _r("batch/v1", "CronJob", short="cj", categories="all", status=True),
    _r("batch/v1", "Job", categories="all", status=True),
    _r("certificates.k8s.io/v1", "CertificateSigningRequest", *_SIGNING_REQUEST, cluster=True, short="csr"),
    _r("networking.k8s.io/v1", "IngressClass", cluster=True),
    _r("networking.k8s.io/v1", "Ingress", short="ing", status=True),
    _r("networking.k8s.io/v1", "IPAddress", cluster=True, short="ip"),
    _r("networking.k8s.io/v1", "NetworkPolicy", short="netpol"),
    _r("networking.k8s.io/v1", "ServiceCIDR", cluster=True, status=True),
    _r("policy/v1", "PodDisruptionBudget", short="pdb", status=True),
    _r("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", cluster=True),
    _r("rbac.authorization.k8s.io/v1", "ClusterRole", cluster=True),
    _r("rbac.authorization.k8s.io/v1", "RoleBinding"),
    _r("rbac.authorization.k8s.io/v1", "Role"),
    _r("storage.k8s.io/v1", "CSIDriver", cluster=True),
    _r("storage.k8s.io/v1", "CSINode", cluster=True),
    _r("storage.k8s.io/v1", "CSIStorageCapacity"),
    _r("storage.k8s.io/v1", "StorageClass", cluster=True, short="sc"),
    _r("storage.k8s.io/v1", "VolumeAttachment", cluster=True, status=True),
    _r("storage.k8s.io/v1", "VolumeAttributesClass", cluster=True, short="vac"),
    _r("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", cluster=True, categories="api-extensions"),
    _r("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding", cluster=True, categories="api-extensions"),
    _r("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", cluster=True, categories="api-extensions"),
    _r(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        cluster=True,
        categories="api-extensions",
        status=True,
    ),
    _r(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        cluster=True,
        categories="api-extensions",
    ),
    _r("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", cluster=True, categories="api-extensions"),
    _r(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        cluster=True,
        short="crd crds",
        categories="api-extensions",
        status=True,
    ),
    _r("scheduling.k8s.io/v1", "PriorityClass", cluster=True, short="pc"),
    _r("coordination.k8s.io/v1", "Lease"),
    _r("node.k8s.io/v1", "RuntimeClass", cluster=True),
    _r("discovery.k8s.io/v1", "EndpointSlice"),
    _r("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", cluster=True, status=True),
    _r("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", cluster=True, status=True),
    _r("resource.k8s.io/v1", "DeviceClass", cluster=True),
    _r("resource.k8s.io/v1", "ResourceClaim", status=True),
    _r("resource.k8s.io/v1", "ResourceClaimTemplate"),
    _r("resource.k8s.io/v1", "ResourceSlice", cluster=True),
)


def _index(resources: Iterable[Resource]) -> Mapping[tuple[str, str, str], Resource]:
    return MappingProxyType({(r.group, r.version, r.plural): r for r in resources})


_BY_PLURAL = _index(BUILTIN)
_BY_KIND = MappingProxyType({(r.group, r.version, r.kind): r for r in BUILTIN})


def lookup(group: str, version: str, plural: str) -> Resource | None:
    """The built-in resource at this group, version and plural, or None."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(group: str, version: str, kind: str) -> Resource | None:
    """The built-in resource of this kind, or None."""
    return _BY_KIND.get((group, version, kind))


def by_api_version(api_version: str, kind: str) -> Resource | None:
    """As `by_kind`, from `apps/v1` or `v1`: what an object or a typed Struct's class carries."""
    group, _, version = api_version.rpartition("/")
    return _BY_KIND.get((group, version, kind))
