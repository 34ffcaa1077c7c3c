"""RuntimeDefault: the system calls that an ordinary container may not make.

Stands apart because it is the one list that decides what of the kernel a container can reach at all. A list of what is
refused, not of what is allowed: software keeps working on newer kernels, and every entry has its reason. A refused call
fails with EPERM, as it would without the capability it needs; so a container that was granted the capability may make
it. Called by `oci`. Source: OCI runtime specification, "Seccomp"; seccomp(2), capabilities(7), and the manual page of
each call. Leaves out Localhost profiles (files that users bring).
"""

from collections.abc import Collection
from typing import Any

_EPERM, _ENOSYS = 1, 38

# capability → calls that are refused to whoever lacks it. The kernel checks most of these itself; refusing them before
# they begin keeps code paths shut in which privilege was gained before (user namespaces grant every capability).
_UNLOCKED_BY: dict[str, tuple[str, ...]] = {
    "CAP_SYS_ADMIN": (
        # mount tables and namespaces
        "mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount",
        "fspick", "mount_setattr", "setns", "unshare",
        # names and accounting of the machine
        "sethostname", "setdomainname", "quotactl", "quotactl_fd", "lookup_dcookie",
        # watching everybody's files
        "fanotify_init",
    ),
    "CAP_BPF": ("bpf",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_SYS_MODULE": ("init_module", "finit_module", "delete_module", "create_module", "query_module",
                       "get_kernel_syms"),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_SYS_TIME": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYS_NICE": ("mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PTRACE": ("process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd"),
}  # fmt: skip
# Refused to everybody: not separated by namespaces (keyrings), obsolete, or a source of kernel holes without need.
_NEVER = (
    "add_key", "keyctl", "request_key",
    "swapon", "swapoff",
    "userfaultfd",
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    "_sysctl", "sysfs", "uselib", "ustat", "nfsservctl", "vm86", "vm86old",
)  # fmt: skip
# clone(2): every CLONE_NEW… flag but CLONE_NEWTIME, which clone() does not take.
_NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def runtime_default(capabilities: Collection[str], architecture: str) -> dict[str, Any]:
    """The `linux.seccomp` of a container with these capabilities on a machine of this architecture (uname(2))."""
    refused = [*_NEVER]
    for capability, calls in _UNLOCKED_BY.items():
        if capability not in capabilities:
            refused += calls
    rules: list[dict[str, Any]] = [_refuse(*sorted(refused))]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += [
            _refuse("clone") | {"args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]}
            for flag in _NAMESPACE_FLAGS
        ]
        # Its flags are behind a pointer, which a filter cannot follow: C libraries fall back to clone().
        rules.append(_refuse("clone3") | {"errnoRet": _ENOSYS})
    document: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if architecture in _ARCHITECTURES:
        document["architectures"] = _ARCHITECTURES[architecture]
    return document


def _refuse(*names: str) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
