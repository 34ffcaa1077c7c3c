"""One container as an OCI runtime document.

Stands apart because everything a container may and may not do is decided here, in one pure function. The worker
resolves environment, mounts and user; the runtime writes the result to `config.json`. Source: OCI runtime
specification 1.0.2; "Configure a Security Context" in the Kubernetes documentation. The list of refused system calls
is in `seccomp`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.agent.core import qos
from pilotage.agent.core.groups import CPU_PERIOD_US, POD_PIDS_MAX
from pilotage.api import quantity
from pilotage.api.core_v1 import Container, Pod

# What container engines grant a container that asks for nothing.
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
# capabilities(7): everything else there is.
ALL_CAPABILITIES = (
    *DEFAULT_CAPABILITIES,
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
)
# By number, as they stand in /proc/PID/status (linux/capability.h).
_CAPABILITIES_BY_NUMBER = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# In a network of its own an ordinary user may listen on port 80, as other engines allow.
DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}
SHM_SIZE = "65536k"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One bind or file system mount inside the container."""

    destination: str
    source: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Numbers the process runs with."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything about one container that is not in its pod: found out by the worker."""

    rootfs: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str
    user: User
    hostname: str
    mounts: Sequence[Mount]
    namespaces: Mapping[str, str]  # type → path; "" for a new one; absent for the agent's own
    cgroup_path: str  # empty: leave the cgroup alone, no resource limits
    unified: Mapping[str, str] = field(default_factory=dict)  # further files of its group of version 2
    memory_bytes: int  # of the node, for the OOM score
    hidden_paths: tuple[str, ...] = ()  # masked beside the usual ones
    grantable: frozenset[str] = frozenset(ALL_CAPABILITIES)  # what `ALL` means: nobody can give what he lacks
    seccomp: Mapping[str, Any] | None = None  # None: every system call is allowed
    app_armor: str = ""  # name of a loaded profile; empty: none
    devices: Sequence[Mapping[str, Any]] = ()  # beside those that every container has
    may_lower_oom_score: bool = True  # False without CAP_SYS_RESOURCE


def document(pod: Pod, container: Container, bundle: Bundle) -> dict[str, Any]:
    """`config.json`. Deterministic: same arguments, same document."""
    security = container.security_context
    privileged = security.privileged
    unmasked = privileged or security.proc_mount == "Unmasked"
    capabilities = list(capabilities_of(container, bundle.grantable))
    # An ordinary user keeps no effective capability across execve(2) unless it is ambient, which Kubernetes never sets.
    effective = capabilities if bundle.user.uid == 0 else []
    escalation = security.allow_privilege_escalation
    process: dict[str, Any] = {
        "terminal": container.tty,
        "user": {
            "uid": bundle.user.uid,
            "gid": bundle.user.gid,
            "additionalGids": list(bundle.user.additional_gids),
        },
        "args": list(bundle.args),
        "env": [f"{name}={value}" for name, value in bundle.environment.items()],
        "cwd": bundle.working_directory or "/",
        "capabilities": {
            "bounding": capabilities,
            "effective": effective,
            "permitted": effective,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": escalation is False and not privileged,
    }
    score = qos.oom_score_adjust(pod, container, bundle.memory_bytes)
    if bundle.may_lower_oom_score or score > 0:
        process["oomScoreAdj"] = score
    if bundle.app_armor:
        process["apparmorProfile"] = bundle.app_armor
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": kind, "path": path} if path else {"type": kind} for kind, path in sorted(bundle.namespaces.items())
        ],
        "maskedPaths": [*(() if unmasked else MASKED_PATHS), *bundle.hidden_paths],
        "readonlyPaths": [] if unmasked else list(READONLY_PATHS),
    }
    if bundle.cgroup_path:
        linux["cgroupsPath"] = bundle.cgroup_path
        linux["resources"] = resources(container)
        if bundle.unified:
            linux["resources"]["unified"] = dict(bundle.unified)
    if bundle.seccomp is not None:
        linux["seccomp"] = bundle.seccomp
    if bundle.devices:
        linux["devices"] = list(bundle.devices)
    linux["sysctl"] = _sysctls(pod, bundle)
    document: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": bundle.rootfs, "readonly": security.read_only_root_filesystem},
        "mounts": [_mount(one) for one in (*_system_mounts(bundle, privileged=privileged), *bundle.mounts)],
        "linux": linux,
    }
    # With a namespace of its own the name is set by whoever made the namespace; runc would refuse to set it twice.
    if bundle.namespaces.get("uts") == "":
        document["hostname"] = bundle.hostname
    return document


def with_users(document: dict[str, Any], namespace: str, *, host_id: int, size: int) -> dict[str, Any]:
    """The document of a container of a pod with users of its own (KEP-127). What it mounts must be theirs already."""
    linux = document["linux"]
    mapping = [{"containerID": 0, "hostID": host_id, "size": size}]
    namespaces = [*linux["namespaces"], {"type": "user", "path": namespace}]
    return document | {
        "linux": linux | {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping},
    }


def _sysctls(pod: Pod, bundle: Bundle) -> dict[str, str]:
    """Those of namespaces that the pod has for itself; others would change the node."""
    asked = {one.name.replace("/", "."): one.value for one in pod.spec.security_context.sysctls}
    found = {}
    if bundle.namespaces.get("network"):
        found = DEFAULT_SYSCTLS | {name: value for name, value in asked.items() if name.startswith("net.")}
    if bundle.namespaces.get("ipc"):
        found |= {name: value for name, value in asked.items() if name.startswith(("kernel.", "fs.mqueue."))}
    return found


def capabilities_of(container: Container, grantable: frozenset[str] = frozenset(ALL_CAPABILITIES)) -> tuple[str, ...]:
    """Defaults − drop + add; `ALL` means all that the agent has; a privileged container has them all."""
    security = container.security_context
    if security.privileged:
        return tuple(sorted(grantable))
    add = {_capability(name) for name in security.capabilities.add}
    drop = {_capability(name) for name in security.capabilities.drop}
    if "CAP_ALL" in add:
        chosen = (set(grantable) | (add - {"CAP_ALL"})) - drop
    elif "CAP_ALL" in drop:
        chosen = add
    else:
        chosen = (set(DEFAULT_CAPABILITIES) | add) - drop
    return tuple(sorted(chosen & set(ALL_CAPABILITIES)))


def capabilities_in(status: str) -> frozenset[str]:
    """The bounding set of a process from the text of its /proc/PID/status; all of them if it does not say."""
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(f"CAP_{name}" for number, name in enumerate(_CAPABILITIES_BY_NUMBER) if bits >> number & 1)
    return frozenset(ALL_CAPABILITIES)


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def resources(container: Container) -> dict[str, Any]:
    """The cgroup part: shares from the request, quota and memory from the limits."""
    limits, requests = container.resources.limits, container.resources.requests
    cpu_request = quantity.milli(requests.get("cpu", limits.get("cpu", "0")))
    cpu: dict[str, Any] = {"shares": qos.cpu_shares(cpu_request)}
    if cpu_limit := quantity.milli(limits.get("cpu", "0")):
        cpu |= {"quota": qos.cpu_quota(cpu_limit, CPU_PERIOD_US), "period": CPU_PERIOD_US}
    result: dict[str, Any] = {
        "cpu": cpu,
        "pids": {"limit": POD_PIDS_MAX},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    if container.security_context.privileged:
        result["devices"] = [{"allow": True, "access": "rwm"}]
    if memory := quantity.whole(limits.get("memory", "0")):
        result["memory"] = {"limit": memory}
    return result


def _system_mounts(bundle: Bundle, *, privileged: bool) -> tuple[Mount, ...]:
    """What every container finds: proc, dev, sys. No cgroup file system: nothing in it is for the container."""
    return (
        Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
        Mount(
            destination="/dev", type="tmpfs", source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            destination="/dev/pts", type="devpts", source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        ),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")),
        _sysfs(bundle, privileged=privileged),
    )  # fmt: skip


def _sysfs(bundle: Bundle, *, privileged: bool) -> Mount:
    access = "rw" if privileged else "ro"
    if "network" in bundle.namespaces:
        return Mount(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", access))
    # sysfs belongs to a network namespace: a pod on the host's network sees the host's.
    return Mount(destination="/sys", source="/sys", options=("rbind", "nosuid", "noexec", "nodev", access))


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }
