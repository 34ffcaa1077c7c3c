"""The rules of configuration, nodes, quotas, events, leases, certificate requests, roles and resource definitions.

Called through `schema_rules`.

Source: the API reference of Kubernetes 1.36.
"""

from __future__ import annotations

import base64
from typing import Any

from pilotage.api import quantity
from pilotage.api import schema_names as names
from pilotage.api.quotas import SCOPES, counted_by, scope_allows
from pilotage.api.schema_problems import Problems

_Object = dict[str, Any]

DATA_BYTES_MAX = 1024 * 1024  # Of a ConfigMap or Secret, so that the store and every watcher can carry it.

_SYSTEM_PRIORITY = 1_000_000_000


def config_map(document: _Object, problems: Problems) -> None:
    """Keys usable as file names, disjoint, bounded."""
    text, binary = document.get("data") or {}, document.get("binaryData") or {}
    total = 0
    for key, value in text.items():
        problems.check(f"data[{key}]", key, names.config_key(key))
        if key in binary:
            problems.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        total += len(value.encode())
    for key, value in binary.items():
        problems.check(f"binaryData[{key}]", key, names.config_key(key))
        total += len(value) * 3 // 4
    if total > DATA_BYTES_MAX:
        problems.too_long("", DATA_BYTES_MAX)


_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
}
_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105 - a type, not a token
_ACCOUNT_NAME = "kubernetes.io/service-account.name"


def secret(document: _Object, problems: Problems) -> None:
    """Keys, size, and what each well-known type must hold. Values never appear in messages."""
    data = document.get("data") or {}
    total = 0
    for key, value in data.items():
        problems.check(f"data[{key}]", key, names.config_key(key))
        total += len(value) * 3 // 4
    if total > DATA_BYTES_MAX:
        problems.too_long("data", DATA_BYTES_MAX)
    kind = document.get("type", "Opaque")
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            problems.required(f"data[{key}]")
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        problems.required("data[username]")
        problems.required("data[password]")
    if kind == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" in data:
        try:
            base64.b64decode(data[".dockerconfigjson"]).decode()
        except ValueError:
            problems.invalid("data[.dockerconfigjson]", "<secret contents redacted>", "must be UTF-8 JSON")
    if kind == _ACCOUNT_TOKEN and not document["metadata"].get("annotations", {}).get(_ACCOUNT_NAME):
        problems.required(f"metadata.annotations[{_ACCOUNT_NAME}]")


def node(document: _Object, problems: Problems) -> None:
    """Pod ranges are blocks; taints are unique and well-formed."""
    spec = document.get("spec") or {}
    blocks = spec.get("podCIDRs") or ()
    for index, block in enumerate(blocks):
        problems.check(f"spec.podCIDRs[{index}]", block, names.cidr(block))
    if spec.get("podCIDR") and blocks and spec["podCIDR"] != blocks[0]:
        problems.invalid("spec.podCIDRs", list(blocks), "first value must match `podCIDR`")
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        where = f"spec.taints[{index}]"
        key = (taint.get("key", ""), taint.get("effect", ""))
        if taint.get("key"):
            problems.check(f"{where}.key", taint["key"], names.qualified_name(taint["key"]))
        if taint.get("value"):
            problems.check(f"{where}.value", taint["value"], names.label_value(taint["value"]))
        if key in seen:
            problems.duplicate(where, taint)
        seen.add(key)


def runtime_class(document: _Object, problems: Problems) -> None:
    """The handler is a label, for the node's runtime knows it by that."""
    handler = document.get("handler", "")
    if not handler:
        problems.required("handler")
    else:
        problems.check("handler", handler, names.dns_label(handler))


def event(document: _Object, problems: Problems) -> None:
    """An event lives in the namespace of what it is about; of a cluster's object, in default or kube-system."""
    subject = document.get("involvedObject") or document.get("regarding") or {}
    field = "involvedObject.namespace" if "involvedObject" in document else "regarding.namespace"
    namespace, about = document.get("metadata", {}).get("namespace", ""), subject.get("namespace", "")
    if about != namespace and (about or namespace not in ("default", "kube-system")):
        problems.invalid(field, about, "does not match event.namespace")


def resource_quota(document: _Object, problems: Problems) -> None:
    """No negative amounts, known scopes that do not contradict each other, and limits they can hold for."""
    spec = document.get("spec", {})
    hard = spec.get("hard") or {}
    for name, amount in hard.items():
        if quantity.parse(amount) < 0:
            problems.invalid(f"spec.hard[{name}]", amount, "must be greater than or equal to 0")
        elif counted_by(name) is None and "/" not in name:
            problems.invalid(f"spec.hard[{name}]", name, "must be a standard resource for quota")
    _quota_scopes(list(spec.get("scopes") or ()), "spec.scopes", hard, problems)
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    for index, item in enumerate(expressions):
        path, values = f"spec.scopeSelector.matchExpressions[{index}]", item.get("values") or ()
        operator, scope = item.get("operator", ""), item.get("scopeName", "")
        if operator in ("In", "NotIn") and not values:
            problems.required(f"{path}.values", "must be at least one value when `operator` is 'In' or 'NotIn' for "
                              "scope selector")  # fmt: skip
        elif operator in ("Exists", "DoesNotExist") and values:
            problems.invalid(
                f"{path}.values", list(values), "must be no value when `operator` is 'Exists' or 'DoesNotExist' for "
                "scope selector"
            )  # fmt: skip
        if operator != "Exists" and scope in _VALUELESS_SCOPES:
            problems.invalid(
                f"{path}.operator", operator, "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, "
                "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
                "ResourceQuotaScopeCrossNamespacePodAffinity"
            )  # fmt: skip
    _quota_scopes([item.get("scopeName", "") for item in expressions], "spec.scopeSelector", hard, problems)


_VALUELESS_SCOPES = frozenset(SCOPES) - {"PriorityClass", "VolumeAttributesClass"}


def _quota_scopes(scopes: list[str], path: str, hard: _Object, problems: Problems) -> None:
    for scope in scopes:
        if scope not in SCOPES:
            problems.invalid(path, list(scopes), "unsupported scope")
        elif any(not scope_allows(scope, name) for name in hard):
            problems.invalid(path, list(scopes), "unsupported scope applied to resource")
    for one, other in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
        if one in scopes and other in scopes:
            problems.invalid(path, list(scopes), "conflicting scopes")


def limit_range(document: _Object, problems: Problems) -> None:
    """min ≤ defaultRequest ≤ default ≤ max for every resource."""
    order = ("min", "defaultRequest", "default", "max")
    for index, limit in enumerate(document.get("spec", {}).get("limits") or ()):
        for low_at, low in enumerate(order):
            for high in order[low_at + 1 :]:
                for name, amount in (limit.get(low) or {}).items():
                    bound = (limit.get(high) or {}).get(name)
                    if bound is not None and quantity.parse(amount) > quantity.parse(bound):
                        detail = f"{low} value {amount} is greater than {high} value {bound}"
                        problems.invalid(f"spec.limits[{index}].{low}[{name}]", amount, detail)


_KEY_USAGES = ("any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
               "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system",
               "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc",
               "ocsp signing", "s/mime", "server auth", "signing", "timestamping")  # fmt: skip


def signing_request(document: _Object, problems: Problems) -> None:
    """A signer's name, known usages, and a life long enough to be of use."""
    spec = document.get("spec", {})
    signer = spec.get("signerName") or ""
    domain, slash, name = signer.partition("/")
    if not signer:
        problems.required("spec.signerName")
    elif not slash or not name or "/" in name:
        problems.invalid("spec.signerName", signer, "must be a fully qualified domain and path of the form "
                         "'example.com/signer-name'")  # fmt: skip
    elif names.dns_subdomain(domain) is not None:
        problems.check("spec.signerName", signer, names.dns_subdomain(domain))
    usages = spec.get("usages") or ()
    if not usages:
        problems.required("spec.usages", "usages must be provided")
    for index, usage in enumerate(usages):
        if usage not in _KEY_USAGES:
            problems.unsupported(f"spec.usages[{index}]", usage, _KEY_USAGES)
        elif usage in usages[:index]:
            problems.duplicate(f"spec.usages[{index}]", usage)
    lifetime = spec.get("expirationSeconds")
    if lifetime is not None and lifetime < 600:
        problems.invalid(
            "spec.expirationSeconds", lifetime, "may not specify a duration less than 600 seconds (10 minutes)"
        )


def lease(document: _Object, problems: Problems) -> None:
    """A holder has a name."""
    if document.get("spec", {}).get("holderIdentity") == "":
        problems.invalid("spec.holderIdentity", "", "must not be empty")


# RBAC


def policy_rules(document: _Object, problems: Problems) -> None:
    """Every rule names verbs, and either resources or URLs."""
    namespaced = document.get("kind") == "Role"
    for index, rule in enumerate(document.get("rules") or ()):
        where = f"rules[{index}]"
        if not rule.get("verbs"):
            problems.required(f"{where}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                problems.invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], detail)
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                problems.invalid(f"{where}.nonResourceURLs", rule["nonResourceURLs"], detail)
            continue
        if not rule.get("apiGroups"):
            problems.required(f"{where}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            problems.required(f"{where}.resources", "resource rules must supply at least one resource")


def role_binding(document: _Object, problems: Problems) -> None:
    """A role that can be bound here, and named subjects."""
    role = document.get("roleRef") or {}
    kinds = ("ClusterRole",) if document.get("kind") == "ClusterRoleBinding" else ("ClusterRole", "Role")
    if role.get("kind") not in kinds:
        problems.unsupported("roleRef.kind", role.get("kind", ""), kinds)
    if not role.get("name"):
        problems.required("roleRef.name")
    else:
        problems.check("roleRef.name", role["name"], names.path_segment(role["name"]))
    for index, subject in enumerate(document.get("subjects") or ()):
        where = f"subjects[{index}]"
        if not subject.get("name"):
            problems.required(f"{where}.name")
        if subject.get("kind") == "ServiceAccount":
            if subject.get("name"):
                problems.check(f"{where}.name", subject["name"], names.dns_subdomain(subject["name"]))
            if not subject.get("namespace"):
                problems.required(f"{where}.namespace")


def priority_class(document: _Object, problems: Problems) -> None:
    """User classes stay below the system's."""
    name, value = document["metadata"].get("name", ""), document.get("value", 0)
    system = name.startswith("system-")
    if value > _SYSTEM_PRIORITY and not system:
        detail = f"maximum allowed value of a user defined priority is {_SYSTEM_PRIORITY}"
        problems.forbidden("value", detail)
    if system and name not in ("system-cluster-critical", "system-node-critical"):
        problems.forbidden(
            "metadata.name", "priority class names with 'system-' prefix are reserved for system use only"
        )


# Custom resources


def custom_resource_definition(document: _Object, problems: Problems) -> None:
    """Named after what it defines, with one storage version and schemas."""
    spec = document.get("spec", {})
    plural, group = spec.get("names", {}).get("plural", ""), spec.get("group", "")
    if document["metadata"].get("name") != f"{plural}.{group}":
        problems.invalid(
            "metadata.name", document["metadata"].get("name", ""), 'must be spec.names.plural+"."+spec.group'
        )
    if group:
        problems.check("spec.group", group, names.dns_subdomain(group))
    versions = spec.get("versions") or ()
    if not versions:
        problems.required("spec.versions", "must have at least one version")
    elif sum(bool(version.get("storage")) for version in versions) != 1:
        problems.invalid(
            "spec.versions",
            [v.get("name") for v in versions],
            "must have exactly one version marked as storage version",
        )
    for index, version in enumerate(versions):
        if not version.get("schema", {}).get("openAPIV3Schema"):
            problems.required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
