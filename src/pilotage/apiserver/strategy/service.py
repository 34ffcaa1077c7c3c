"""Services: keep what was allocated, and let go of what the new type has no use for.

A client may write a Service without knowing what the server allocated for it; those values are carried over. When the
type changes, fields that only the old type has are dropped unless the client set them on purpose.

Called by `prepare`; allocation itself is admission's. Source: the Service registry of Kubernetes 1.36.
"""

from __future__ import annotations

from typing import Any

_Object = dict[str, Any]


def create(service: _Object) -> None:
    """No balancer has answered yet."""
    service["status"] = {"loadBalancer": {}}


def create_ingress(ingress: _Object) -> None:
    """No gateway has answered yet."""
    ingress["status"] = {"loadBalancer": {}}


def update(old: _Object, new: _Object) -> None:
    """Carry over allocated values and drop what no longer applies."""
    before, after = old.get("spec") or {}, new.setdefault("spec", {})
    was, now = before.get("type", "ClusterIP"), after.get("type") or "ClusterIP"
    if now != "ExternalName" and was != "ExternalName":
        _carry_over_addresses(before, after)
    _trim_second_family(before, after)
    _carry_over_ports(before, after, now)
    _drop_for_type(before, after, was, now)
    if was == "LoadBalancer" and now != "LoadBalancer":
        new["status"] = {"loadBalancer": {}}


def _carry_over_addresses(before: _Object, after: _Object) -> None:
    if not after.get("clusterIP") and not after.get("clusterIPs"):
        for field in ("clusterIP", "clusterIPs"):
            if field in before:
                after[field] = before[field]
    elif after.get("clusterIP") == before.get("clusterIP") and not after.get("clusterIPs"):
        after["clusterIPs"] = before.get("clusterIPs", [])
    elif not after.get("clusterIP"):
        after["clusterIP"] = after["clusterIPs"][0]
    for field in ("ipFamilies", "ipFamilyPolicy"):
        if not after.get(field) and before.get(field):
            after[field] = before[field]


def _trim_second_family(before: _Object, after: _Object) -> None:
    """Asking for one family is enough to give the second up, unless the client wrote other addresses or families."""
    if after.get("ipFamilyPolicy") != "SingleStack":
        return
    for field in ("clusterIPs", "ipFamilies"):
        if len(after.get(field) or ()) > 1 and after[field] == before.get(field):
            after[field] = after[field][:1]


def _uses_node_ports(spec: _Object, kind: str) -> bool:
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True))


def _carry_over_ports(before: _Object, after: _Object, kind: str) -> None:
    if not _uses_node_ports(after, kind):
        return
    known = {
        (port.get("port"), port.get("protocol", "TCP")): port["nodePort"]
        for port in before.get("ports") or ()
        if port.get("nodePort")
    }
    given = {port.get("nodePort") for port in after.get("ports") or ()}
    for port in after.get("ports") or ():
        allocated = known.get((port.get("port"), port.get("protocol", "TCP")))
        if not port.get("nodePort") and allocated is not None and allocated not in given:
            port["nodePort"] = allocated
    if _wants_health_check(after) and not after.get("healthCheckNodePort") and before.get("healthCheckNodePort"):
        after["healthCheckNodePort"] = before["healthCheckNodePort"]


def _wants_health_check(spec: _Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _drop_for_type(before: _Object, after: _Object, was: str, now: str) -> None:
    """Only values the client left as they were: setting one on purpose is an error that validation reports."""
    if now == "ExternalName" and was != "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            _drop_unchanged(before, after, field)
    if _uses_node_ports(before, was) and now in ("ClusterIP", "ExternalName"):
        unchanged = {port.get("nodePort") for port in before.get("ports") or ()}
        for port in after.get("ports") or ():
            if port.get("nodePort") in unchanged:
                port.pop("nodePort", None)
    if not _wants_health_check(after):
        _drop_unchanged(before, after, "healthCheckNodePort")
    if was == "LoadBalancer" and now != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass", "loadBalancerSourceRanges"):
            _drop_unchanged(before, after, field)
    external = now in ("NodePort", "LoadBalancer") or (now == "ClusterIP" and after.get("externalIPs"))
    if not external:
        _drop_unchanged(before, after, "externalTrafficPolicy")
    if now != "ExternalName" and was == "ExternalName":
        _drop_unchanged(before, after, "externalName")


def _drop_unchanged(before: _Object, after: _Object, field: str) -> None:
    if field in after and after[field] == before.get(field):
        del after[field]
