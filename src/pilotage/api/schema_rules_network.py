"""The rules of Services, endpoints, Ingresses and network policies.

Called through `schema_rules`. What compares with the stored Service, or needs an allocator, belongs to the API server.

Source: the API reference of Kubernetes 1.36; KEP-3178 (addresses), KEP-2086 (internalTrafficPolicy).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from pilotage.api import schema_names as names
from pilotage.api.schema_problems import Problems

_Object = dict[str, Any]

ENDPOINTS_MAX = 1000
ENDPOINT_PORTS_MAX = 20_000


# Services


def service_ports(service: _Object, problems: Problems) -> None:
    """At least one port unless headless or external; names, protocols and numbers unique."""
    spec = service.get("spec", {})
    ports = spec.get("ports") or ()
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and spec.get("type") != "ExternalName":
        problems.required("spec.ports")
    seen_names: set[str] = set()
    seen: set[tuple[Any, ...]] = set()
    node_ports: set[tuple[Any, ...]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        _service_port(port, where, problems, several=len(ports) > 1)
        name = port.get("name", "")
        if name and name in seen_names:
            problems.duplicate(f"{where}.name", name)
        seen_names.add(name)
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            problems.duplicate(where, {"port": port.get("port"), "protocol": port.get("protocol")})
        seen.add(key)
        node_port = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort"):
            if spec.get("type") in ("ClusterIP", "ExternalName"):
                detail = f"may not be used when `type` is '{spec['type']}'"
                problems.forbidden(f"{where}.nodePort", detail)
            elif node_port in node_ports:
                problems.duplicate(f"{where}.nodePort", port["nodePort"])
        node_ports.add(node_port)


def _service_port(port: _Object, path: str, problems: Problems, *, several: bool) -> None:
    name = port.get("name", "")
    if not name and several:
        problems.required(f"{path}.name")
    elif name:
        problems.check(f"{path}.name", name, names.dns_label(name))
    if "port" not in port:
        problems.required(f"{path}.port")
    target = port.get("targetPort")
    if isinstance(target, str):
        problems.check(f"{path}.targetPort", target, names.port_name(target))
    elif target is not None and not 1 <= target <= 65535:
        problems.invalid(f"{path}.targetPort", target, "must be between 1 and 65535, inclusive")
    if port.get("appProtocol"):
        problems.check(f"{path}.appProtocol", port["appProtocol"], names.qualified_name(port["appProtocol"]))


def service_type(service: _Object, problems: Problems) -> None:
    """What each type needs and forbids."""
    spec = service.get("spec", {})
    kind = spec.get("type")
    if kind == "ExternalName":
        name = spec.get("externalName", "")
        if not name:
            problems.required("spec.externalName")
        else:
            problems.check("spec.externalName", name, names.dns_subdomain(name.removesuffix(".")))
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field) not in (None, "", []):
                problems.forbidden(f"spec.{field}", "may not be set when `type` is 'ExternalName'")
    elif kind == "LoadBalancer" and spec.get("clusterIP") == "None":
        problems.invalid("spec.clusterIP", "None", "may not be set to 'None' for LoadBalancer services")
    elif kind == "NodePort" and spec.get("clusterIP") == "None":
        problems.invalid("spec.clusterIP", "None", "may not be set to 'None' for NodePort services")
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if field in spec:
                problems.forbidden(f"spec.{field}", "may only be used when `type` is 'LoadBalancer'")
    if spec.get("loadBalancerSourceRanges") and kind != "LoadBalancer":
        problems.forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
    for key, value in (spec.get("selector") or {}).items():
        problems.check("spec.selector", key, names.qualified_name(key))
        problems.check("spec.selector", value, names.label_value(value))


def service_addresses(service: _Object, problems: Problems) -> None:
    """Well-formed and consistent cluster and external addresses."""
    spec = service.get("spec", {})
    addresses = spec.get("clusterIPs") or ()
    primary = spec.get("clusterIP", "")
    if addresses and primary and addresses[0] != primary:
        problems.invalid("spec.clusterIPs", list(addresses), "first value must match `clusterIP`")
    if len(addresses) > 2:
        problems.too_many("spec.clusterIPs", len(addresses), 2)
    for index, address in enumerate(addresses):
        if address not in ("None", ""):
            problems.check(f"spec.clusterIPs[{index}]", address, names.ip_address(address))
    if not addresses and primary not in ("", "None"):
        problems.check("spec.clusterIP", primary, names.ip_address(primary))
    for index, address in enumerate(spec.get("externalIPs") or ()):
        where = f"spec.externalIPs[{index}]"
        problem = names.ip_address(address)
        problems.check(where, address, problem)
        if problem is None:
            _not_special(address, where, problems)
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        problems.check(f"spec.LoadBalancerSourceRanges[{index}]", block, names.cidr(block.strip()))
    families = spec.get("ipFamilies") or ()
    for index, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            problems.unsupported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
        elif family in families[:index]:
            problems.duplicate(f"spec.ipFamilies[{index}]", family)


def _not_special(address: str, path: str, problems: Problems) -> None:
    problems.check(path, address, _special(address))


@lru_cache(maxsize=8192)
def _special(address: str) -> str | None:
    """Why a well-formed address cannot be an endpoint's or external."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        return f"may not be unspecified ({address})"
    if parsed.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if parsed.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if parsed.is_multicast:
        return "may not be in the multicast range (224.0.0.0/4, ff00::/10)"
    return None


def service_policies(service: _Object, problems: Problems) -> None:
    """Traffic policies and affinity only where they mean something."""
    spec = service.get("spec", {})
    kind = spec.get("type")
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if "externalTrafficPolicy" in spec and not external:
        problems.invalid(
            "spec.externalTrafficPolicy",
            spec["externalTrafficPolicy"],
            "may only be set for externally-accessible services",
        )
    wants_check = kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
    if spec.get("healthCheckNodePort") and not wants_check:
        problems.invalid(
            "spec.healthCheckNodePort",
            spec["healthCheckNodePort"],
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        )
    if spec.get("sessionAffinity") == "ClientIP" and "sessionAffinityConfig" not in spec:
        problems.required("spec.sessionAffinityConfig", "must be set when session affinity is ClientIP")


def service_status(service: _Object, problems: Problems) -> None:
    """What a balancer answered: addresses or names, and for addresses who turns them into endpoints (KEP-1860)."""
    listed = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    path = "status.loadBalancer.ingress"
    if listed and service.get("spec", {}).get("type") != "LoadBalancer":
        problems.forbidden(path, 'may only be used when `spec.type` is "LoadBalancer"')
    for index, ingress in enumerate(listed):
        where, address, mode = f"{path}[{index}]", ingress.get("ip", ""), ingress.get("ipMode")
        if address:
            problems.check(f"{where}.ip", address, names.ip_address(address))
            if mode not in ("VIP", "Proxy"):
                problems.unsupported(f"{where}.ipMode", mode, ("Proxy", "VIP"))
        elif mode is not None:
            problems.forbidden(f"{where}.ipMode", "may not be specified when `ip` is not set")
        if name := ingress.get("hostname"):
            problems.check(f"{where}.hostname", name, names.dns_subdomain(name))
            if names.ip_address(name) is None:
                problems.invalid(f"{where}.hostname", name, "must be a DNS name, not an IP address")


# Endpoints


def endpoints(document: _Object, problems: Problems) -> None:
    """The older form: subsets of addresses and ports."""
    for index, subset in enumerate(document.get("subsets") or ()):
        where = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            problems.required(where, "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for at, address in enumerate(subset.get(field) or ()):
                _endpoint_address(address.get("ip", ""), f"{where}.{field}[{at}].ip", problems)
        _endpoint_ports(subset.get("ports") or (), f"{where}.ports", problems)


def endpoint_slice(document: _Object, problems: Problems) -> None:
    """Addresses of the declared type, bounded, with unique port names."""
    family = document.get("addressType")
    listed = document.get("endpoints") or ()
    if len(listed) > ENDPOINTS_MAX:
        problems.too_many("endpoints", len(listed), ENDPOINTS_MAX)
    for index, endpoint in enumerate(listed):
        where = f"endpoints[{index}].addresses"
        addresses = endpoint.get("addresses") or ()
        if not addresses:
            problems.required(where, "must contain at least 1 address")
        if len(addresses) > 100:
            problems.too_many(where, len(addresses), 100)
        for at, address in enumerate(addresses):
            _typed_address(address, family, f"{where}[{at}]", problems)
        if endpoint.get("hostname"):
            problems.check(f"endpoints[{index}].hostname", endpoint["hostname"], names.dns_label(endpoint["hostname"]))
    ports = document.get("ports") or ()
    if len(ports) > ENDPOINT_PORTS_MAX:
        problems.too_many("ports", len(ports), ENDPOINT_PORTS_MAX)
    _endpoint_ports(ports, "ports", problems)


def _typed_address(address: str, family: str | None, path: str, problems: Problems) -> None:
    if family == "FQDN":
        problems.check(path, address, names.dns_subdomain(address))
        return
    problem = names.ip_address(address)
    if problem is None and (family == "IPv6") != (":" in address):
        problem = f"must be an {family} address"
    if problem is not None:
        problems.invalid(path, address, problem)
    else:
        _not_special(address, path, problems)


def _endpoint_address(address: str, path: str, problems: Problems) -> None:
    problem = names.ip_address(address)
    problems.check(path, address, problem)
    if problem is None:
        _not_special(address, path, problems)


def _endpoint_ports(ports: Any, path: str, problems: Problems) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name", "")
        if len(ports) > 1 and name in seen:
            problems.duplicate(f"{path}[{index}].name", name)
        seen.add(name)
        if name:
            problems.check(f"{path}[{index}].name", name, names.dns_label(name))


# Ingress


def ingress_backends(ingress: _Object, problems: Problems) -> None:
    """A default backend or rules, and every backend complete."""
    spec = ingress.get("spec", {})
    if not spec.get("rules") and not spec.get("defaultBackend"):
        problems.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend") is not None:
        _backend(spec["defaultBackend"], "spec.defaultBackend", problems)
    if spec.get("ingressClassName"):
        problems.check("spec.ingressClassName", spec["ingressClassName"], names.dns_subdomain(spec["ingressClassName"]))


def ingress_rules(ingress: _Object, problems: Problems) -> None:
    """Hosts and paths."""
    for index, rule in enumerate(ingress.get("spec", {}).get("rules") or ()):
        where = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host:
            if names.ip_address(host) is None:
                problems.invalid(f"{where}.host", host, "must be a DNS name, not an IP address")
            else:
                problems.check(f"{where}.host", host, names.wildcard_subdomain(host))
        if "http" not in rule:
            continue
        paths = rule["http"].get("paths") or ()
        if not paths:
            problems.required(f"{where}.http.paths")
        for at, entry in enumerate(paths):
            _ingress_path(entry, f"{where}.http.paths[{at}]", problems)


_FORBIDDEN_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")


def _ingress_path(entry: _Object, path: str, problems: Problems) -> None:
    kind, text = entry.get("pathType"), entry.get("path", "")
    if kind is None:
        problems.required(f"{path}.pathType", "pathType must be specified")
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            problems.invalid(f"{path}.path", text, "must be an absolute path")
        for wrong in _FORBIDDEN_IN_PATHS:
            if wrong in text:
                problems.invalid(f"{path}.path", text, f"must not contain '{wrong}'")
        for wrong in ("/..", "/."):
            if text.endswith(wrong):
                problems.invalid(f"{path}.path", text, f"cannot end with '{wrong}'")
    elif text and not text.startswith("/"):
        problems.invalid(f"{path}.path", text, "must be an absolute path")
    _backend(entry.get("backend") or {}, f"{path}.backend", problems)


def _backend(backend: _Object, path: str, problems: Problems) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        problems.invalid(path, backend, "cannot set both resource and service backends")
    elif service is None and resource is None:
        problems.required(path, "resource or service backend is required")
    elif service is not None:
        name, port = service.get("name", ""), service.get("port") or {}
        if not name:
            problems.required(f"{path}.service.name")
        else:
            problems.check(f"{path}.service.name", name, names.dns_label_1035(name))
        if port.get("name") and port.get("number"):
            problems.invalid(f"{path}.service.port", port, "cannot set both port name & port number")
        elif port.get("name"):
            problems.check(f"{path}.service.port.name", port["name"], names.port_name(port["name"]))
        elif not port.get("number"):
            problems.required(f"{path}.service.port", "port name or number is required")


def ingress_tls(ingress: _Object, problems: Problems) -> None:
    """Host names of the certificates."""
    for index, tls in enumerate(ingress.get("spec", {}).get("tls") or ()):
        for at, host in enumerate(tls.get("hosts") or ()):
            problems.check(f"spec.tls[{index}].hosts[{at}]", host, names.wildcard_subdomain(host))
        if tls.get("secretName"):
            problems.check(f"spec.tls[{index}].secretName", tls["secretName"], names.dns_subdomain(tls["secretName"]))


def ingress_class(document: _Object, problems: Problems) -> None:
    """The controller's name must be prefixed by a domain."""
    controller = document.get("spec", {}).get("controller", "")
    if controller and "/" not in controller:
        problems.invalid(
            "spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")'
        )  # fmt: skip


# Network policy


def service_cidr(document: _Object, problems: Problems) -> None:
    """One range, or one of each family; exact, so that it names no address inside itself."""
    cidrs = document.get("spec", {}).get("cidrs") or ()
    if not cidrs:
        problems.required("spec.cidrs", "at least one CIDR required")
    if len(cidrs) > 2:
        problems.invalid("spec.cidrs", list(cidrs), "may only hold up to 2 values")
        return
    families = []
    for index, cidr in enumerate(cidrs):
        path = f"spec.cidrs[{index}]"
        try:
            parsed = ipaddress.ip_network(cidr)
        except ValueError:
            problems.invalid(path, cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
            continue
        if str(parsed) != cidr:
            problems.invalid(path, cidr, f'must be in canonical form ("{parsed}")')
        if parsed.num_addresses < 4:
            problems.invalid(path, cidr, "must hold at least four addresses")
        if parsed.version in families:
            problems.invalid("spec.cidrs", list(cidrs), "may specify no more than one IP for each IP family")
        families.append(parsed.version)


def ip_address(document: _Object, problems: Problems) -> None:
    """Named by the address itself, in canonical form; it belongs to somebody."""
    name = document.get("metadata", {}).get("name", "")
    try:
        canonical = str(ipaddress.ip_address(name))
    except ValueError:
        canonical = ""
    if name and canonical != name:
        problems.invalid("metadata.name", name, "must be a valid IP address in canonical form")
    parent = document.get("spec", {}).get("parentRef")
    if not parent:
        problems.required("spec.parentRef")
        return
    for field in ("resource", "name"):
        if not parent.get(field):
            problems.required(f"spec.parentRef.{field}")


def network_policy(policy: _Object, problems: Problems) -> None:
    """Peers select either pods and namespaces or an address block, which must contain its exceptions."""
    spec = policy.get("spec", {})
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            for at, peer in enumerate(rule.get(peers) or ()):
                _peer(peer, f"spec.{direction}[{index}].{peers}[{at}]", problems)
            for at, port in enumerate(rule.get("ports") or ()):
                _policy_port(port, f"spec.{direction}[{index}].ports[{at}]", problems)


def _policy_port(port: _Object, path: str, problems: Problems) -> None:
    number, end = port.get("port"), port.get("endPort")
    if isinstance(number, str):
        problems.check(f"{path}.port", number, names.port_name(number))
    elif number is not None and not 1 <= number <= 65535:
        problems.invalid(f"{path}.port", number, "must be between 1 and 65535, inclusive")
    if end is not None:
        if number is None:
            problems.required(f"{path}.port", "may not be empty when `endPort` is specified")
        elif isinstance(number, str):
            problems.invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
        elif end < number:
            problems.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")


def _peer(peer: _Object, path: str, problems: Problems) -> None:
    block = peer.get("ipBlock")
    if not peer:
        problems.required(path, "must specify a peer")
    if block is None:
        return
    if len(peer) > 1:
        problems.forbidden(path, "may not specify both ipBlock and another peer")
    text = block.get("cidr", "")
    problem = names.cidr(text)
    if not text:
        problems.required(f"{path}.ipBlock.cidr")
        return
    problems.check(f"{path}.ipBlock.cidr", text, problem)
    for index, exception in enumerate(block.get("except") or ()):
        where = f"{path}.ipBlock.except[{index}]"
        wrong = names.cidr(exception)
        problems.check(where, exception, wrong)
        if problem is None and wrong is None and not _inside(exception, text):
            problems.invalid(where, exception, "must be a strict subset of `cidr`")


def _inside(inner: str, outer: str) -> bool:
    small, large = ipaddress.ip_network(inner, strict=False), ipaddress.ip_network(outer, strict=False)
    if small.version != large.version or small.prefixlen <= large.prefixlen:
        return False
    return small.network_address in large
