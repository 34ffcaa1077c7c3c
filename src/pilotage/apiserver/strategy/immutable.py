"""What may not change once it is written, in Kubernetes' words.

An ordered tuple of small checks, each a kind and a function over the stored and the wanted document. Called by the
write pipeline after `schema_validation` found the new document good by itself.

Source: the update validation of each kind in Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.schema_problems import Problems
from pilotage.api.schema_rules_network import service_status
from pilotage.api.status import FieldError
from pilotage.apiserver.strategy.pod import quality

_Object = dict[str, Any]
Check = Callable[[_Object, _Object, Problems], None]

IMMUTABLE = "field is immutable"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"  # on what shows a static pod

_POD_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_STATEFUL_MAY_CHANGE = frozenset(
    {"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
     "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}
)  # fmt: skip


def check_update(resource: Resource, old: _Object, new: _Object, subresource: str = "") -> tuple[FieldError, ...]:
    """Everything wrong with the difference between two good documents."""
    problems = Problems()
    _finalizers(old, new, problems)
    if not subresource:
        for check in _CHECKS.get((resource.group, resource.kind), ()):
            check(old, new, problems)
    elif subresource == "status" and (resource.group, resource.kind) == ("", "Service"):
        service_status(new, problems)  # what others report is taken as it is; this one steers packets
    elif subresource == "ephemeralcontainers":
        _ephemeral_containers(old, new, problems)
    elif subresource == "resize":
        _resize(old, new, problems)
    return tuple(problems.errors)


def _finalizers(old: _Object, new: _Object, problems: Problems) -> None:
    if "deletionTimestamp" not in old["metadata"]:
        return
    before = old["metadata"].get("finalizers") or ()
    added = [item for item in new["metadata"].get("finalizers") or () if item not in before]
    if added:
        listed = ", ".join(f'"{item}"' for item in added)
        problems.forbidden(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
        )


def _get(document: _Object, path: str) -> Any:
    here: Any = document
    for name in path.split("."):
        here = here.get(name) if isinstance(here, dict) else None
    return here


def fixed(*paths: str, detail: str = IMMUTABLE) -> Check:
    """A check that these fields stay as they were."""

    def check(old: _Object, new: _Object, problems: Problems) -> None:
        for path in paths:
            if _get(old, path) != _get(new, path):
                problems.invalid(path, _get(new, path), detail)

    return check


def kept_once_set(*paths: str, detail: str = IMMUTABLE) -> Check:
    """As `fixed`, but an empty field may be filled."""

    def check(old: _Object, new: _Object, problems: Problems) -> None:
        for path in paths:
            before = _get(old, path)
            if before and before != _get(new, path):
                problems.invalid(path, _get(new, path), detail)

    return check


def _pod(old: _Object, new: _Object, problems: Problems) -> None:
    before, after = old["spec"], new["spec"]
    for field in ("containers", "initContainers"):
        if len(before.get(field) or ()) != len(after.get(field) or ()):
            problems.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
    if (before.get("ephemeralContainers") or []) != (after.get("ephemeralContainers") or []):
        problems.forbidden(
            "spec.ephemeralContainers", "may only be changed through the ephemeralcontainers subresource"
        )
        return
    gated = bool(before.get("schedulingGates"))
    if _frozen_part(before, gated=gated) != _frozen_part(after, gated=gated):
        problems.forbidden("spec", _POD_MAY_CHANGE)
    tolerations = after.get("tolerations") or []
    if any(item not in tolerations for item in before.get("tolerations") or ()):
        problems.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    gates = before.get("schedulingGates") or []
    for gate in after.get("schedulingGates") or ():
        if gate not in gates:
            problems.forbidden(
                "spec.schedulingGates", f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            )
    deadline, wanted = before.get("activeDeadlineSeconds"), after.get("activeDeadlineSeconds")
    if deadline is not None and (wanted is None or wanted > deadline):
        problems.invalid("spec.activeDeadlineSeconds", wanted, "must be less than or equal to previous value")


_RESIZABLE = frozenset({"cpu", "memory"})


def _resize(old: _Object, new: _Object, problems: Problems) -> None:
    """Processor time and memory only, and within the quality of service the pod was admitted with (KEP-1287, KEP-5419).

    A static pod is its file's: what shows it cannot be resized.
    """
    if MIRROR_ANNOTATION in (old["metadata"].get("annotations") or {}):
        problems.forbidden("", "static pods cannot be resized")
        return
    if quality(old["spec"]) != quality(new["spec"]):
        detail = "Pod QOS Class may not change as a result of resizing"
        problems.invalid("spec", quality(new["spec"]), detail)
    _resize_whole(old["spec"].get("resources"), new["spec"].get("resources"), problems)
    for field in ("initContainers", "containers"):
        for index, (before, after) in enumerate(
            zip(old["spec"].get(field) or (), new["spec"].get(field) or (), strict=False)
        ):
            had, has, path = before.get("resources") or {}, after.get("resources") or {}, f"spec.{field}[{index}]"
            for kind in ("requests", "limits"):
                if _without_resizable(had, kind) != _without_resizable(has, kind):
                    problems.forbidden(f"{path}.resources.{kind}", "only cpu and memory resources are mutable")
                elif _loses(had, has, kind):
                    problems.forbidden(f"{path}.resources.{kind}", f"resource {kind} cannot be removed")
            if had != has and field == "initContainers" and _must_restart(after):
                detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
                problems.forbidden(path, detail)


def _resize_whole(had: _Object | None, has: _Object | None, problems: Problems) -> None:
    """What the pod asks for as a whole: it may come into being, grow and shrink, but not go."""
    if had and not has:
        problems.forbidden("spec.resources", "pod-level resources cannot be removed")
        return
    before, after = had or {}, has or {}
    for kind in ("requests", "limits"):
        if _loses(before, after, kind):
            problems.forbidden(f"spec.resources.{kind}", f"pod-level resource {kind} cannot be removed")
    if any(_without_resizable(before, kind) != _without_resizable(after, kind) for kind in ("requests", "limits")):
        problems.forbidden("spec", "only cpu and memory resources are mutable at pod-level")


def _without_resizable(resources: _Object, kind: str) -> _Object:
    return {name: amount for name, amount in (resources.get(kind) or {}).items() if name not in _RESIZABLE}


def _loses(had: _Object, has: _Object, kind: str) -> bool:
    return bool((had.get(kind) or {}).keys() - (has.get(kind) or {}).keys())


def _must_restart(container: _Object) -> bool:
    """An init container that runs to its end cannot be begun anew because of a resize."""
    policies = container.get("resizePolicy") or ()
    return container.get("restartPolicy") != "Always" and any(
        item.get("restartPolicy") == "RestartContainer" for item in policies
    )


def _ephemeral_containers(old: _Object, new: _Object, problems: Problems) -> None:
    """They are only ever added (KEP-277)."""
    wanted = {item.get("name"): item for item in new["spec"].get("ephemeralContainers") or ()}
    for item in old["spec"].get("ephemeralContainers") or ():
        name = item["name"]
        if wanted.get(name) != item:
            happened = "changed" if name in wanted else "removed"
            detail = f'existing ephemeral containers "{name}" may not be {happened}'
            problems.forbidden("spec.ephemeralContainers", detail)


def _frozen_part(spec: _Object, *, gated: bool) -> _Object:
    """A pod's spec without what may change; a gated pod may still be narrowed by its scheduling fields."""
    loose = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if gated:
        loose |= {"nodeSelector", "affinity"}
    if spec.get("terminationGracePeriodSeconds", 0) <= 1:
        loose.add("terminationGracePeriodSeconds")
    part = {key: value for key, value in spec.items() if key not in loose}
    for field in ("containers", "initContainers"):
        if field in part:
            part[field] = [{**item, "image": ""} for item in part[field]]
    return part


def _service(old: _Object, new: _Object, problems: Problems) -> None:
    before, after = old["spec"], new["spec"]
    if "ExternalName" not in (before.get("type"), after.get("type")):
        was, now = before.get("clusterIPs") or [], after.get("clusterIPs") or []
        if was and now and was[0] != now[0]:
            problems.invalid("spec.clusterIPs[0]", now[0], "may not change once set")
        elif before.get("clusterIP") and after.get("clusterIP") != before["clusterIP"]:
            problems.invalid("spec.clusterIP", after.get("clusterIP", ""), IMMUTABLE)
        families, wanted = before.get("ipFamilies") or [], after.get("ipFamilies") or []
        if families and wanted and families[0] != wanted[0]:
            problems.invalid("spec.ipFamilies[0]", wanted[0], "may not change once set")
    if before.get("type") == after.get("type") == "LoadBalancer":
        if before.get("loadBalancerClass") != after.get("loadBalancerClass"):
            problems.invalid("spec.loadBalancerClass", after.get("loadBalancerClass"), "may not change once set")
        check, wanted_check = before.get("healthCheckNodePort"), after.get("healthCheckNodePort")
        if check and wanted_check and check != wanted_check:
            problems.invalid("spec.healthCheckNodePort", wanted_check, IMMUTABLE)


def _stateful_set(old: _Object, new: _Object, problems: Problems) -> None:
    before, after = old["spec"], new["spec"]
    names = (before.keys() | after.keys()) - _STATEFUL_MAY_CHANGE
    if any(before.get(name) != after.get(name) for name in names):
        problems.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )


def _job(old: _Object, new: _Object, problems: Problems) -> None:
    if old["spec"].get("completionMode") != "Indexed":
        fixed("spec.completions")(old, new, problems)
    if not old["spec"].get("suspend"):
        fixed("spec.template")(old, new, problems)


def _sealed(*fields: str) -> Check:
    """ConfigMaps and Secrets that were marked immutable."""

    def check(old: _Object, new: _Object, problems: Problems) -> None:
        if not old.get("immutable"):
            return
        if not new.get("immutable"):
            problems.forbidden("immutable", "field is immutable when `immutable` is set")
        for field in fields:
            if (old.get(field) or {}) != (new.get(field) or {}):
                problems.forbidden(field, "field is immutable when `immutable` is set")

    return check


def _claim(old: _Object, new: _Object, problems: Problems) -> None:
    loose = {"resources", "volumeAttributesClassName"}
    before = {key: value for key, value in old["spec"].items() if key not in loose}
    after = {key: value for key, value in new["spec"].items() if key not in loose}
    if not before.get("volumeName"):
        after.pop("volumeName", None)  # The binder fills it in once.
    if not before.get("storageClassName"):
        after.pop("storageClassName", None)
    if before != after:
        problems.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )


def _node(old: _Object, new: _Object, problems: Problems) -> None:
    before = (old.get("spec") or {}).get("podCIDRs") or []
    after = (new.get("spec") or {}).get("podCIDRs") or []
    if before and before != after:
        problems.forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
    kept_once_set("spec.providerID", detail='node updates may not change providerID except from "" to valid')(
        old, new, problems
    )


def _service_cidr(old: _Object, new: _Object, problems: Problems) -> None:
    """A range of the other family may join the first; what is there stays."""
    before, after = old["spec"].get("cidrs") or [], new["spec"].get("cidrs") or []
    if after[: len(before)] != before:
        problems.invalid("spec.cidrs", after, IMMUTABLE)


def _storage_class(old: _Object, new: _Object, problems: Problems) -> None:
    for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if old.get(field) != new.get(field):
            problems.forbidden(field, f"updates to {field} are forbidden.")


def _priority_class(old: _Object, new: _Object, problems: Problems) -> None:
    if old.get("value", 0) != new.get("value", 0):
        problems.forbidden("value", "may not be changed in an update.")
    fixed("preemptionPolicy")(old, new, problems)


_RBAC = "rbac.authorization.k8s.io"
_ROLE_REF = fixed("roleRef", detail="cannot change roleRef")

_CHECKS: Mapping[tuple[str, str], tuple[Check, ...]] = {
    ("", "ConfigMap"): (_sealed("data", "binaryData"),),
    ("", "Node"): (_node,),
    ("", "PersistentVolumeClaim"): (_claim,),
    ("", "Pod"): (_pod,),
    ("", "Secret"): (fixed("type"), _sealed("data")),
    ("", "Service"): (_service,),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (
        fixed("spec.group", "spec.scope", "spec.names.plural", "spec.names.kind"),
    ),
    ("apps", "DaemonSet"): (fixed("spec.selector"),),
    ("apps", "Deployment"): (fixed("spec.selector"),),
    ("apps", "ReplicaSet"): (fixed("spec.selector"),),
    ("apps", "StatefulSet"): (_stateful_set,),
    ("batch", "Job"): (fixed("spec.selector", "spec.completionMode"), _job),
    ("discovery.k8s.io", "EndpointSlice"): (fixed("addressType"),),
    ("networking.k8s.io", "IPAddress"): (fixed("spec.parentRef"),),
    ("networking.k8s.io", "IngressClass"): (fixed("spec.controller"),),
    ("networking.k8s.io", "ServiceCIDR"): (_service_cidr,),
    ("node.k8s.io", "RuntimeClass"): (fixed("handler"),),
    ("scheduling.k8s.io", "PriorityClass"): (_priority_class,),
    ("storage.k8s.io", "StorageClass"): (_storage_class,),
    (_RBAC, "ClusterRoleBinding"): (_ROLE_REF,),
    (_RBAC, "RoleBinding"): (_ROLE_REF,),
}
