"""A container's environment: literals, `$(VAR)`, references already resolved, and the variables that name Services.

Stands apart because its rules are many and purely textual. The worker gathers the objects; here they become a dict.
Source: "Define Dependent Environment Variables" and "Discovering services" in the Kubernetes documentation.
Leaves out reading ConfigMaps and Secrets (`references`).
"""

import re
from collections.abc import Iterable, Mapping

from pilotage.api.core_v1 import Service

_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(VAR)` → its value, `$$(VAR)` → `$(VAR)`; an unknown reference stays as it is written."""

    def value(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name = match.group("name")
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(value, text)


def expand_path(text: str, variables: Mapping[str, str]) -> str:
    """`expand` for a path, where nothing may stay unknown; raises `KeyError` with the first unknown name."""
    for match in _REFERENCE.finditer(text):
        name = match.group("name")
        if name is not None and name not in variables:
            raise KeyError(name)
    return expand(text, variables)


def service_variables(services: Iterable[Service], namespace: str, *, links: bool) -> dict[str, str]:
    """Variables for `default/kubernetes` always, for the Services of `namespace` if `links` (enableServiceLinks).

    Only Services with a cluster IP; one with the pod's namespace wins over `default/kubernetes`.
    """
    chosen: dict[str, Service] = {}
    for service in services:
        metadata = service.metadata
        if service.spec.cluster_ip in ("", "None"):
            continue
        if metadata.namespace == "default" and metadata.name == "kubernetes":
            chosen.setdefault("kubernetes", service)
        if links and metadata.namespace == namespace:
            chosen[metadata.name] = service
    variables: dict[str, str] = {}
    for name in sorted(chosen):
        variables.update(_variables_of(chosen[name]))
    return variables


def _variables_of(service: Service) -> dict[str, str]:
    prefix = _variable_name(service.metadata.name)
    ip = service.spec.cluster_ip
    host = f"[{ip}]" if ":" in ip else ip
    variables = {f"{prefix}_SERVICE_HOST": ip}
    for index, port in enumerate(service.spec.ports):
        if index == 0:
            variables[f"{prefix}_SERVICE_PORT"] = str(port.port)
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}"] = str(port.port)
    # The names Docker's container links had; kept by Kubernetes to this day.
    for index, port in enumerate(service.spec.ports):
        protocol = port.protocol.lower()
        url = f"{protocol}://{host}:{port.port}"
        if index == 0:
            variables[f"{prefix}_PORT"] = url
        port_prefix = f"{prefix}_PORT_{port.port}_{port.protocol.upper()}"
        variables[port_prefix] = url
        variables[f"{port_prefix}_PROTO"] = protocol
        variables[f"{port_prefix}_PORT"] = str(port.port)
        variables[f"{port_prefix}_ADDR"] = ip
    return variables


def _variable_name(text: str) -> str:
    return text.upper().replace("-", "_")
