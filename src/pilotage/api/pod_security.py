"""Pod Security Standards: what a pod does that the levels baseline and restricted forbid.

An ordered tuple of checks a level, each a function over the pod's spec that returns what is forbidden and who does it,
or None. Pure. Called by admission for pods and for the templates of workloads.

Left out: older versions of the standards (`…-version` labels are shown, and judged as the latest); Windows' exceptions.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, KEP-2579; messages as kube-apiserver's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_Object = Mapping[str, Any]
Finding = tuple[str, str]  # what is forbidden, who does it
Check = Callable[[_Object, _Object], Finding | None]  # metadata and spec of the pod

LEVELS = ("privileged", "baseline", "restricted")

_DEFAULT_CAPABILITIES = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
     "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)  # fmt: skip
_SYSCTLS = frozenset(
    {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
     "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
     "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
     "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}
)  # fmt: skip
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
     "secret"}
)  # fmt: skip
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP = ("Localhost", "RuntimeDefault")


def violations(level: str, metadata: _Object, spec: _Object) -> str:
    """Everything a pod does that the level forbids, in one line; "" when it may run."""
    findings = (check(metadata, spec) for check in _CHECKS[level])
    return ", ".join(f"{what} ({who})" for what, who in filter(None, findings))


# Parts


def _containers(spec: _Object) -> Iterator[_Object]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def _context(owner: _Object) -> _Object:
    found: _Object = owner.get("securityContext") or {}
    return found


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _who(names: list[str], *, pod: bool = False, joined: str = "and") -> str:
    """`pod and containers "a", "b"`."""
    several = f"container{'s' if len(names) > 1 else ''} {_quoted(names)}" if names else ""
    return f" {joined} ".join(filter(None, ("pod" if pod else "", several)))


def _where(spec: _Object, bad: Callable[[_Object], bool]) -> list[str]:
    return [item["name"] for item in _containers(spec) if bad(item)]


# Baseline


def _app_armor(metadata: _Object, spec: _Object) -> Finding | None:
    def bad(owner: _Object) -> bool:
        kind = (_context(owner).get("appArmorProfile") or {}).get("type")
        return kind not in (None, "RuntimeDefault", "Localhost")

    found = []
    pod, names = bad(spec), _where(spec, bad)
    if pod or names:
        owners = [spec, *_containers(spec)]
        kinds = dict.fromkeys(_context(item)["appArmorProfile"]["type"] for item in owners if bad(item))
        found.append(f"{_who(names, pod=pod)} must not set AppArmor profile type to {_quoted(kinds)}")
    for key, value in (metadata.get("annotations") or {}).items():
        allowed = value in ("", "runtime/default") or value.startswith("localhost/")
        if key.startswith(_APP_ARMOR) and not allowed:
            found.append(f"annotation {key}={json.dumps(value)}")
    return (f"forbidden AppArmor profile{'s' if len(found) > 1 else ''}", ", ".join(found)) if found else None


def _capabilities(metadata: _Object, spec: _Object) -> Finding | None:
    added = _added_capabilities(spec, _DEFAULT_CAPABILITIES)
    return ("non-default capabilities", added) if added else None


def _added_capabilities(spec: _Object, allowed: frozenset[str]) -> str:
    names, extra = [], set()
    for item in _containers(spec):
        wrong = set((_context(item).get("capabilities") or {}).get("add") or ()) - allowed
        if wrong:
            names.append(item["name"])
            extra |= wrong
    if not names:
        return ""
    return f"{_who(names)} must not include {_quoted(sorted(extra))} in securityContext.capabilities.add"


def _host_namespaces(metadata: _Object, spec: _Object) -> Finding | None:
    used = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return ("host namespaces", ", ".join(used)) if used else None


def _host_path_volumes(metadata: _Object, spec: _Object) -> Finding | None:
    names = [volume["name"] for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    return ("hostPath volumes", f"volume{'s' if len(names) > 1 else ''} {_quoted(names)}") if names else None


def _host_ports(metadata: _Object, spec: _Object) -> Finding | None:
    names, ports = [], []
    for item in _containers(spec):
        used = [port["hostPort"] for port in item.get("ports") or () if port.get("hostPort")]
        if used:
            names.append(item["name"])
            ports += used
    if not names:
        return None
    verb, noun = ("use" if len(names) > 1 else "uses"), ("hostPorts" if len(ports) > 1 else "hostPort")
    return "hostPort", f"{_who(names)} {verb} {noun} {', '.join(str(port) for port in sorted(set(ports)))}"


def _host_probes(metadata: _Object, spec: _Object) -> Finding | None:
    names, hosts = [], []
    for item in _containers(spec):
        lifecycle = item.get("lifecycle") or {}
        handlers = [item.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [lifecycle.get(name) for name in ("postStart", "preStop")]
        used = [
            action["host"]
            for handler in handlers
            for action in ((handler or {}).get("httpGet") or {}, (handler or {}).get("tcpSocket") or {})
            if action.get("host")
        ]
        if used:
            names.append(item["name"])
            hosts += used
    if not names:
        return None
    noun = "hosts" if len(set(hosts)) > 1 else "host"
    verb = "use" if len(names) > 1 else "uses"
    return "probe or lifecycle host", f"{_who(names)} {verb} probe or lifecycle {noun} {_quoted(dict.fromkeys(hosts))}"


def _privileged(metadata: _Object, spec: _Object) -> Finding | None:
    names = _where(spec, lambda item: bool(_context(item).get("privileged")))
    return ("privileged", f"{_who(names)} must not set securityContext.privileged=true") if names else None


def _proc_mount(metadata: _Object, spec: _Object) -> Finding | None:
    names = _where(spec, lambda item: _context(item).get("procMount") not in (None, "", "Default"))
    kinds = dict.fromkeys(_context(item)["procMount"] for item in _containers(spec) if item["name"] in names)
    return ("procMount", f"{_who(names)} must not set securityContext.procMount to {_quoted(kinds)}") if names else None


def _selinux(metadata: _Object, spec: _Object) -> Finding | None:
    def options(owner: _Object) -> _Object:
        found: _Object = _context(owner).get("seLinuxOptions") or {}
        return found

    def bad(owner: _Object) -> bool:
        set_ = options(owner)
        return set_.get("type", "") not in _SELINUX_TYPES or bool(set_.get("user")) or bool(set_.get("role"))

    pod, names = bad(spec), _where(spec, bad)
    if not pod and not names:
        return None
    wrong = [options(item) for item in (spec, *_containers(spec)) if bad(item)]
    types = dict.fromkeys(item["type"] for item in wrong if item.get("type", "") not in _SELINUX_TYPES)
    details = [f"type{'s' if len(types) > 1 else ''} {_quoted(types)}"] if types else []
    details += [f"{field} may not be set" for field in ("user", "role") if any(item.get(field) for item in wrong)]
    return (
        "seLinuxOptions",
        f"{_who(names, pod=pod)} set forbidden securityContext.seLinuxOptions: {'; '.join(details)}",
    )


def _seccomp_kind(owner: _Object) -> str | None:
    kind: str | None = (_context(owner).get("seccompProfile") or {}).get("type")
    return kind


def _seccomp(metadata: _Object, spec: _Object) -> Finding | None:
    def bad(owner: _Object) -> bool:
        return _seccomp_kind(owner) not in (None, *_SECCOMP)

    pod, names = bad(spec), _where(spec, bad)
    if not pod and not names:
        return None
    kinds = dict.fromkeys(str(_seccomp_kind(item)) for item in (spec, *_containers(spec)) if bad(item))
    return (
        "seccompProfile",
        f"{_who(names, pod=pod)} must not set securityContext.seccompProfile.type to {_quoted(kinds)}",
    )


def _sysctls(metadata: _Object, spec: _Object) -> Finding | None:
    names = [item["name"] for item in _context(spec).get("sysctls") or () if item["name"] not in _SYSCTLS]
    return ("forbidden sysctls", ", ".join(names)) if names else None


def _host_process(metadata: _Object, spec: _Object) -> Finding | None:
    def bad(owner: _Object) -> bool:
        return bool((_context(owner).get("windowsOptions") or {}).get("hostProcess"))

    pod, names = bad(spec), _where(spec, bad)
    if not pod and not names:
        return None
    return "hostProcess", f"{_who(names, pod=pod)} must not set securityContext.windowsOptions.hostProcess=true"


# Restricted


def _escalation(metadata: _Object, spec: _Object) -> Finding | None:
    names = _where(spec, lambda item: _context(item).get("allowPrivilegeEscalation") is not False)
    what = "must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", f"{_who(names)} {what}") if names else None


def _unrestricted_capabilities(metadata: _Object, spec: _Object) -> Finding | None:
    keeping = _where(spec, lambda item: "ALL" not in ((_context(item).get("capabilities") or {}).get("drop") or ()))
    found = [f'{_who(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    added = _added_capabilities(spec, frozenset({"NET_BIND_SERVICE"}))
    return ("unrestricted capabilities", "; ".join([*found, *filter(None, (added,))])) if found or added else None


def _volume_types(metadata: _Object, spec: _Object) -> Finding | None:
    names: list[str] = []
    kinds: dict[str, None] = {}
    for volume in spec.get("volumes") or ():
        for kind in volume.keys() - {"name"} - _VOLUMES:
            if volume[kind] is not None:
                names.append(volume["name"])
                kinds[kind] = None
    if not names:
        return None
    several = f"volume{'s' if len(names) > 1 else ''} {_quoted(names)} {'use' if len(names) > 1 else 'uses'}"
    return (
        "restricted volume types",
        f"{several} restricted volume type{'s' if len(kinds) > 1 else ''} {_quoted(kinds)}",
    )


def _non_root(metadata: _Object, spec: _Object) -> Finding | None:
    what = "runAsNonRoot != true"
    pod_wish = _context(spec).get("runAsNonRoot")
    refusing = _where(spec, lambda item: _context(item).get("runAsNonRoot") is False)
    if refusing:
        return what, f"{_who(refusing)} must not set securityContext.runAsNonRoot=false"
    silent = _where(spec, lambda item: _context(item).get("runAsNonRoot") is None)
    if pod_wish is True or not silent:
        return None
    if pod_wish is False:
        return what, "pod must not set securityContext.runAsNonRoot=false"
    return what, f"{_who(silent, pod=True, joined='or')} must set securityContext.runAsNonRoot=true"


def _root_user(metadata: _Object, spec: _Object) -> Finding | None:
    pod = _context(spec).get("runAsUser") == 0
    names = _where(spec, lambda item: _context(item).get("runAsUser") == 0)
    return ("runAsUser=0", f"{_who(names, pod=pod)} must not set runAsUser=0") if pod or names else None


def _seccomp_restricted(metadata: _Object, spec: _Object) -> Finding | None:
    forbidden = _seccomp(metadata, spec)
    if forbidden is not None:
        return forbidden
    silent = _where(spec, lambda item: _seccomp_kind(item) is None)
    if _seccomp_kind(spec) is not None or not silent:
        return None
    return "seccompProfile", (
        f"{_who(silent, pod=True, joined='or')} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost"'
    )


# In the order in which kube-apiserver names them; what restricted judges more strictly is not judged twice.
_BASELINE: tuple[Check, ...] = (
    _app_armor, _capabilities, _host_namespaces, _host_path_volumes, _host_ports, _host_probes, _privileged,
    _proc_mount, _selinux, _seccomp, _sysctls, _host_process,
)  # fmt: skip
_STRICTER = (_capabilities, _host_path_volumes, _seccomp)
_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "privileged": (),
    "baseline": _BASELINE,
    "restricted": (
        *(check for check in _BASELINE if check not in _STRICTER),
        _escalation, _unrestricted_capabilities, _volume_types, _non_root, _root_user, _seccomp_restricted,
    ),
}  # fmt: skip
