"""The rules of a pod's spec, shared by Pods and by the templates of everything that makes Pods.

Called through `schema_rules` and by `schema_rules_workload`. Field values with a closed set are in `schema_values`.

Source: the API reference of Kubernetes 1.36 for PodSpec, Container, Volume and Probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.api import quantity
from pilotage.api import schema_names as names
from pilotage.api.quotas import pod_total
from pilotage.api.schema_problems import Problems

_Object = dict[str, Any]

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_STANDARD_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
_WHOLE_RESOURCES = ("cpu", "memory")  # and huge pages


def pod(document: _Object, problems: Problems) -> None:
    """A Pod as a whole."""
    pod_spec(document.get("spec", {}), "spec", problems)


def pod_spec(spec: _Object, path: str, problems: Problems) -> None:
    """Everything a pod's spec must satisfy."""
    volumes = _volumes(spec.get("volumes") or (), f"{path}.volumes", problems)
    if not spec.get("containers"):
        problems.required(f"{path}.containers")
    seen: set[str] = set()
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            where = f"{path}.{field}[{index}]"
            if container.get("name") in seen:
                problems.duplicate(f"{where}.name", container["name"])
            seen.add(container.get("name", ""))
            _container(container, where, volumes, problems, init=field == "initContainers")
    _ephemeral_containers(spec, path, problems)
    _whole_resources(spec, path, problems)
    _security(spec, path, problems)
    _host_ports(spec, path, problems)
    _placement(spec, path, problems)
    _names(spec, path, problems)
    _dns(spec, path, problems)


# Containers


def _ephemeral_containers(spec: _Object, path: str, problems: Problems) -> None:
    """What looks into a pod gives no guarantees, so it may ask for none (KEP-277)."""
    targets = {item.get("name") for field in ("containers", "initContainers") for item in spec.get(field) or ()}
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        where = f"{path}.ephemeralContainers[{index}]"
        for field in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"):
            if container.get(field):
                problems.forbidden(f"{where}.{field}", "cannot be set for an Ephemeral Container")
        target = container.get("targetContainerName")
        if target and target not in targets:
            problems.not_found(f"{where}.targetContainerName", target)


def _container(container: _Object, path: str, volumes: set[str], problems: Problems, *, init: bool) -> None:
    name = container.get("name")
    if not name:
        problems.required(f"{path}.name")
    else:
        problems.check(f"{path}.name", name, names.dns_label(name))
    image = container.get("image")
    if not image:
        problems.required(f"{path}.image")
    elif image != image.strip():
        problems.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    _environment(container, path, problems)
    _mounts(container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes, problems)
    resources(container.get("resources") or {}, f"{path}.resources", problems)
    _ports(container.get("ports") or (), f"{path}.ports", problems)
    sidecar = init and container.get("restartPolicy") == "Always"
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if field not in container:
            continue
        if init and not sidecar:
            problems.forbidden(f"{path}.{field}", "may not be set for init containers without restartPolicy=Always")
        _probe(container[field], f"{path}.{field}", problems, once=field != "readinessProbe")
    for field, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            _handler(handler, f"{path}.lifecycle.{field}", problems)


def _environment(container: _Object, path: str, problems: Problems) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        where = f"{path}.env[{index}]"
        name = variable.get("name")
        if not name:
            problems.required(f"{where}.name")
        else:
            problems.check(f"{where}.name", name, names.environment_name(name))
        source = variable.get("valueFrom")
        if source is not None:
            if len(source) != 1:
                detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
                if source:
                    detail = "may not have more than one field specified at a time"
                problems.invalid(f"{where}.valueFrom", source, detail)
            if variable.get("value"):
                problems.invalid(f"{where}.valueFrom", source, "may not be specified when `value` is not empty")
    for index, source in enumerate(container.get("envFrom") or ()):
        where = f"{path}.envFrom[{index}]"
        references = [key for key in ("configMapRef", "secretRef") if key in source]
        if len(references) != 1:
            detail = "may not have more than one field specified at a time" if references else (
                "must specify one of: `configMapRef` or `secretRef`"
            )  # fmt: skip
            problems.invalid(where, source, detail)
        for reference in references:
            if not source[reference].get("name"):
                problems.required(f"{where}.{reference}.name")


def _mounts(mounts: Any, path: str, volumes: set[str], problems: Problems) -> None:
    points: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        if not mount.get("name"):
            problems.required(f"{where}.name")
        elif mount["name"] not in volumes:
            problems.not_found(f"{where}.name", mount["name"])
        point = mount.get("mountPath")
        if not point:
            problems.required(f"{where}.mountPath")
        elif point in points:
            problems.invalid(f"{where}.mountPath", point, "must be unique")
        points.add(point or "")
        sub_path = mount.get("subPath", "")
        if sub_path.startswith("/"):
            problems.invalid(f"{where}.subPath", sub_path, "must be a relative path")
        if ".." in sub_path.split("/"):
            problems.invalid(f"{where}.subPath", sub_path, "must not contain '..'")


def _ports(ports: Any, path: str, problems: Problems) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        name = port.get("name")
        if name:
            problem = names.port_name(name)
            if problem is not None:
                problems.invalid(f"{where}.name", name, problem)
            elif name in seen:
                problems.duplicate(f"{where}.name", name)
            seen.add(name)
        if not port.get("containerPort"):
            problems.required(f"{where}.containerPort")


def _host_ports(spec: _Object, path: str, problems: Problems) -> None:
    seen: set[tuple[Any, ...]] = set()
    for index, container in enumerate(spec.get("containers") or ()):
        for at, port in enumerate(container.get("ports") or ()):
            where = f"{path}.containers[{index}].ports[{at}]"
            host = port.get("hostPort")
            if not host:
                continue
            if spec.get("hostNetwork") and host != port.get("containerPort"):
                problems.invalid(
                    f"{where}.containerPort",
                    port.get("containerPort"),
                    "must match `hostPort` when `hostNetwork` is true",
                )
            key = (port.get("hostIP", ""), host, port.get("protocol", "TCP"))
            if key in seen:
                problems.duplicate(f"{where}.hostPort", f"{key[2]}/{key[0]}/{host}")
            seen.add(key)


def _probe(probe: _Object, path: str, problems: Problems, *, once: bool) -> None:
    _handler(probe, path, problems)
    if once and probe.get("successThreshold", 1) != 1:
        problems.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(handler: _Object, path: str, problems: Problems) -> None:
    chosen = [name for name in _HANDLERS if name in handler]
    if not chosen:
        problems.required(path, "must specify a handler type")
    for extra in chosen[1:]:
        problems.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    if "exec" in handler and not handler["exec"].get("command"):
        problems.required(f"{path}.exec.command")
    for name in ("httpGet", "tcpSocket"):
        if name in handler:
            _port_or_name(handler[name].get("port"), f"{path}.{name}.port", problems)


def _port_or_name(port: int | str | None, path: str, problems: Problems) -> None:
    if port is None:
        return  # Reported as required by the schema.
    if isinstance(port, str):
        problems.check(path, port, names.port_name(port))
    elif not 1 <= port <= 65535:
        problems.invalid(path, port, "must be between 1 and 65535, inclusive")


def resources(requirements: _Object, path: str, problems: Problems) -> None:
    """Requests and limits: known names, no negative amounts, requests within limits."""
    limits: Mapping[str, str] = requirements.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, amount in (requirements.get(kind) or {}).items():
            where = f"{path}.{kind}[{name}]"
            if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
                problems.invalid(where, name, "must be a standard resource for containers")
            elif (problem := names.qualified_name(name)) is not None:
                problems.invalid(where, name, problem)
            if quantity.parse(amount) < 0:
                problems.invalid(where, amount, "must be greater than or equal to 0")
            elif kind == "requests" and name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
                problems.invalid(
                    f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}"
                )


def _whole_resources(spec: _Object, path: str, problems: Problems) -> None:
    """What a pod asks for as a whole holds what its containers ask for (KEP-2837)."""
    whole = spec.get("resources")
    if not whole:
        return
    where = f"{path}.resources"
    if whole.get("claims"):
        problems.forbidden(f"{where}.claims", "claims may not be set for Resources at pod-level")
    for kind in ("limits", "requests"):
        for name in whole.get(kind) or ():
            if name not in _WHOLE_RESOURCES and not name.startswith("hugepages-"):
                problems.unsupported(f"{where}.{kind}[{name}]", name, (*_WHOLE_RESOURCES, "hugepages-"))
    resources(whole, where, problems)
    asked: Mapping[str, str] = whole.get("requests") or {}
    for name, together in pod_total({**spec, "resources": {}, "overhead": {}}, "requests").items():
        if name in asked and together > quantity.parse(asked[name]):
            least = quantity.render(together, binary=name != "cpu")
            detail = f"must be greater than or equal to aggregate container requests of {least}"
            problems.invalid(f"{where}.requests[{name}]", asked[name], detail)
    capped: Mapping[str, str] = whole.get("limits") or {}
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
                if name in capped and quantity.parse(amount) > quantity.parse(capped[name]):
                    at = f"{path}.{field}[{index}].resources.limits"
                    problems.invalid(at, amount, f"must be less than or equal to pod limits of {capped[name]}")


def _security(spec: _Object, path: str, problems: Problems) -> None:
    """Profiles that are files have a name, others have none; a pod with users of its own shares nothing with the node.

    KEP-127: ids of the pod mean nothing in namespaces that belong to the node.
    """
    owners = [(path, spec)]
    for field in ("initContainers", "containers", "ephemeralContainers"):
        owners += [(f"{path}.{field}[{index}]", item) for index, item in enumerate(spec.get(field) or ())]
    for where, owner in owners:
        profile = (owner.get("securityContext") or {}).get("appArmorProfile") or {}
        at, name = f"{where}.securityContext.appArmorProfile.localhostProfile", profile.get("localhostProfile")
        if profile.get("type") == "Localhost" and not (name or "").strip():
            problems.required(at, "must be set when AppArmor type is Localhost")
        elif profile and profile.get("type") != "Localhost" and name is not None:
            problems.invalid(at, name, "can only be set when AppArmor type is Localhost")
    if spec.get("hostUsers", True):
        return
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            problems.forbidden(f"{path}.{field}", "when `hostUsers` is false")
    for where, owner in owners:
        if owner.get("volumeDevices"):
            problems.forbidden(f"{where}.volumeDevices", "when `hostUsers` is false")


# Volumes


def _volumes(volumes: Any, path: str, problems: Problems) -> set[str]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume.get("name")
        if not name:
            problems.required(f"{where}.name")
        else:
            problems.check(f"{where}.name", name, names.dns_label(name))
            if name in seen:
                problems.duplicate(f"{where}.name", name)
            seen.add(name)
        sources = sorted(key for key in volume if key != "name")
        if not sources:
            problems.required(where, "must specify a volume type")
        for extra in sources[1:]:
            problems.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type")
        _volume_source(volume, where, problems)
    return seen


def _volume_source(volume: _Object, path: str, problems: Problems) -> None:
    if "hostPath" in volume:
        where, target = f"{path}.hostPath.path", volume["hostPath"].get("path")
        if not target:
            problems.required(where)
        elif ".." in target.split("/"):
            problems.invalid(where, target, "must not contain '..'")
    if "secret" in volume and not volume["secret"].get("secretName"):
        problems.required(f"{path}.secret.secretName")
    if "configMap" in volume and not volume["configMap"].get("name"):
        problems.required(f"{path}.configMap.name")
    if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("claimName"):
        problems.required(f"{path}.persistentVolumeClaim.claimName")
    for name in ("secret", "configMap", "downwardAPI"):
        for index, item in enumerate(volume.get(name, {}).get("items") or ()):
            _relative_path(item, f"{path}.{name}.items[{index}]", problems)
    for index, source in enumerate(volume.get("projected", {}).get("sources") or ()):
        where = f"{path}.projected.sources[{index}]"
        if len(source) > 1:
            problems.forbidden(where, "may not specify more than 1 volume type")
        for name, projection in source.items():
            for at, item in enumerate(projection.get("items") or ()):
                _relative_path(item, f"{where}.{name}.items[{at}]", problems)


def _relative_path(item: _Object, path: str, problems: Problems) -> None:
    target = item.get("path", "")
    if target.startswith("/"):
        problems.invalid(f"{path}.path", target, "must be a relative path")
    if ".." in target.split("/"):
        problems.invalid(f"{path}.path", target, "must not contain '..'")


# Placement, names, resolver


def _placement(spec: _Object, path: str, problems: Problems) -> None:
    for key, value in (spec.get("nodeSelector") or {}).items():
        problems.check(f"{path}.nodeSelector", key, names.qualified_name(key))
        problems.check(f"{path}.nodeSelector", value, names.label_value(value))
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        where = f"{path}.tolerations[{index}]"
        operator = toleration.get("operator", "Equal")
        if not toleration.get("key") and operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            problems.invalid(f"{where}.operator", operator, detail)
        if operator == "Exists" and toleration.get("value"):
            problems.invalid(
                f"{where}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'"
            )
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            problems.invalid(f"{where}.effect", toleration.get("effect", ""), detail)
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        where = f"{path}.topologySpreadConstraints[{index}]"
        key = (constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", ""))
        if key in seen:
            problems.duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key[0]}, {key[1]}}}")
        seen.add(key)


def _names(spec: _Object, path: str, problems: Problems) -> None:
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            problems.check(f"{path}.{field}", spec[field], names.dns_label(spec[field]))
    for field in ("serviceAccountName", "nodeName", "priorityClassName"):
        if spec.get(field):
            problems.check(f"{path}.{field}", spec[field], names.dns_subdomain(spec[field]))
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        where = f"{path}.hostAliases[{index}]"
        problems.check(f"{where}.ip", alias.get("ip", ""), names.ip_address(alias.get("ip", "")))
        for host in alias.get("hostnames") or ():
            problems.check(f"{where}.hostnames", host, names.dns_subdomain(host))


def _dns(spec: _Object, path: str, problems: Problems) -> None:
    config = spec.get("dnsConfig") or {}
    where = f"{path}.dnsConfig"
    servers = config.get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        problems.required(f"{where}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > 3:
        problems.invalid(f"{where}.nameservers", list(servers), "must not have more than 3 nameservers")
    for index, server in enumerate(servers):
        problems.check(f"{where}.nameservers[{index}]", server, names.ip_address(server))
    searches = config.get("searches") or ()
    if len(searches) > 32:
        problems.invalid(f"{where}.searches", list(searches), "must not have more than 32 search paths")
    for index, search in enumerate(searches):
        if search != ".":
            # Underscores are common in search domains and allowed since 1.34.
            text = search.removesuffix(".").replace("_", "x")
            problems.check(f"{where}.searches[{index}]", search, names.dns_subdomain(text))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            problems.required(f"{where}.options[{index}]", "must not be empty")
