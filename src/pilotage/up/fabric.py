"""The fabric: the private namespaces that hold a cluster, built from inside by the process that is their PID 1.

Apart from the zygote so that building is separate from serving. `spawn_fabric` forks that process; `build` makes the
private mounts and the networks of the plan. Nothing outside these namespaces is changed, so nothing needs undoing: when
PID 1 ends the kernel removes every process, mount, namespace and interface in them.

    supervisor ─fork→ keeper ─fork→ zygote (PID 1 of the fabric) ─fork→ components

The keeper exists because a new PID namespace holds the *children* of the process that asked for it. Each dies with its
parent (PR_SET_PDEATHSIG), so killing the supervisor in any way ends them all.

Specification: pid_namespaces(7), user_namespaces(7), mount_namespaces(7).
"""

import errno
import os
import select
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from pilotage.kit import PilotageError
from pilotage.network import KernelWiring, NetworkError, namespaces
from pilotage.up.core.plan import (
    FABRIC_SYSCTLS,
    NODE_SYSCTLS,
    SECOND_SYSCTLS,
    UNDERLAY_BRIDGE,
    Plan,
    fabric_routes,
)
from pilotage.up.layout import Layout
from pilotage.up.process import die_with_parent, set_name

# What a failing step most likely lacks, as the command that provides it.
_HINTS = {
    errno.EOPNOTSUPP: "the kernel lacks a needed module: as root run `modprobe -a bridge veth nf_tables overlay`",
    errno.ENOSPC: "the kernel allows no more namespaces: raise the sysctls user.max_user_namespaces and "
    "user.max_net_namespaces",
    errno.EPERM: "this user may not create namespaces: run as root, or allow it with "
    "`sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`",
}

# The keeper closes descriptors below this, so that it keeps nothing open for nobody; a supervisor has about twenty.
_INHERITED_MAX = 256


def spawn_fabric(control: socket.socket, main: Callable[[], None]) -> tuple[int, int]:
    """Fork the keeper, and from it a process in new PID, mount and network namespaces that runs `main`.

    `control` is the caller's end of the socket that `main` uses: the children close it, so that each end sees the other
    go. Returns the PIDs of keeper and zygote as the caller sees them; the keeper ends when the fabric is gone.
    PilotageError when the kernel refuses. The caller must have a single thread.
    """
    supervisor = os.getpid()
    word_r, word_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        try:
            os.setsid()  # Ctrl-C at the terminal is for the supervisor alone
            control.close()
            os.close(word_r)
            os.close(mapped_w)
            _keep(main, supervisor, word_w, mapped_r)
        except NetworkError as error:
            os.write(word_w, f"failed {explain(error)}\n".encode())
        finally:
            os._exit(1)
    os.close(word_w)
    os.close(mapped_r)
    try:
        with os.fdopen(word_r) as words:
            word = words.readline()
            if word == "map\n":
                _map_ids(keeper)
                os.write(mapped_w, b"m")
                word = words.readline()
    finally:
        os.close(mapped_w)
    if not word.strip().isdigit():
        os.waitpid(keeper, 0)
        raise PilotageError(word.removeprefix("failed ").strip() or "the fabric ended while it was being made")
    return keeper, int(word)


def _keep(main: Callable[[], None], supervisor: int, word: int, mapped: int) -> None:
    """The keeper: new user and PID namespace, one child, wait for its end. Never returns."""
    set_name("pilotage-keeper")
    if os.getuid() != 0:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        # Identities are mapped from outside: more than one needs the set-user-ID program newuidmap.
        os.write(word, b"map\n")
        if not os.read(mapped, 1):
            return
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    die_with_parent()
    if os.getppid() != supervisor:  # it died before the kernel was told to watch it
        return
    namespaces.unshare(namespaces.CLONE_NEWPID)
    zygote = os.fork()
    if zygote == 0:
        try:
            die_with_parent()
            os.close(word)
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWIPC)
            main()
            os._exit(0)
        except NetworkError as error:
            os.write(2, f"{explain(error)}\n".encode())
        finally:
            os._exit(1)
    os.write(word, f"{zygote}\n".encode())
    os.closerange(3, _INHERITED_MAX)
    _, status = os.waitpid(zygote, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _map_ids(pid: int) -> None:
    """Map this user to root in the user namespace of `pid`, and its subordinate ranges, where it has any, behind it."""
    user, group = os.getuid(), os.getgid()
    mapped = [_map_range("newuidmap", "/etc/subuid", pid, user), _map_range("newgidmap", "/etc/subgid", pid, group)]
    process = Path("/proc", str(pid))
    if not mapped[0]:
        process.joinpath("uid_map").write_text(f"0 {user} 1\n")
    if not mapped[1]:
        process.joinpath("setgroups").write_text("deny")  # user_namespaces(7): required before gid_map
        process.joinpath("gid_map").write_text(f"0 {group} 1\n")


def _map_range(program: str, ranges: str, pid: int, own: int) -> bool:
    """Map with the set-user-ID helper; False: there is none, or no range for this user, so one identity must do."""
    import pwd
    import shutil

    if shutil.which(program) is None:
        return False
    try:
        names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
        rows = [line.split(":") for line in Path(ranges).read_text().splitlines()]
        start, count = next((row[1], row[2]) for row in rows if len(row) == 3 and row[0] in names)
    except (OSError, KeyError, StopIteration):
        return False
    done = subprocess.run(
        [program, str(pid), "0", str(own), "1", "1", start, count], capture_output=True, timeout=5, check=False
    )
    return done.returncode == 0


def build(plan: Plan, layout: Layout) -> None:
    """Private mounts, then the networks of `plan`; about 15 ms for two nodes. Raises NetworkError.

    Runs as PID 1 of the fabric, in namespaces of its own that still look like the host's.
    """
    _mount_private(plan, layout)
    wiring = KernelWiring()
    second = plan.second
    more = SECOND_SYSCTLS if second else {}
    wiring.set_sysctls(FABRIC_SYSCTLS | more)
    loopback_up()
    addresses = [f"{plan.address}/{plan.prefix_length}"]
    addresses += [f"{second.address}/{second.prefix_length}"] if second else []
    wiring.ensure_bridge(UNDERLAY_BRIDGE, addresses=addresses)
    for node in plan.nodes:
        path = layout.namespace(node.name)
        wiring.create_namespace(path)
        wiring.set_sysctls(NODE_SYSCTLS | more, namespace=path)
        wiring.attach(
            path,
            bridge=UNDERLAY_BRIDGE,
            address=f"{node.address}/{plan.prefix_length}",
            gateway=plan.address,
            routed=False,
            hairpin=False,
            further=[(f"{node.second_address}/{second.prefix_length}", second.address)] if second else [],
        )
    wiring.ensure_routes(fabric_routes(plan))


def loopback_up() -> None:
    """Bring up loopback in the namespace of the caller."""
    from pilotage.network.core.rtnetlink import set_up
    from pilotage.network.netlink import NetlinkSocket

    with NetlinkSocket.open() as here:
        here.execute("bring up loopback", [set_up(1)])


def _mount_private(plan: Plan, layout: Layout) -> None:
    """Mounts that only the fabric sees: /proc of its processes, an empty /run, scratch space, its own resolv.conf."""
    namespaces.mount("none", "/", "", namespaces.MS_REC | namespaces.MS_PRIVATE)
    namespaces.mount("proc", "/proc", "proc", namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC)
    run = os.open(layout.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The host's daemons listen under /run; a pod on the host's file system has no business with them.
        namespaces.mount("tmpfs", "/run", "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=755")
        if not layout.run.exists():
            layout.run.mkdir(parents=True)
            namespaces.mount(f"/proc/self/fd/{run}", str(layout.run), "", namespaces.MS_BIND)
    finally:
        os.close(run)
    Path("/run/netns").mkdir()
    namespaces.mount("tmpfs", str(layout.scratch), "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=700")
    _mount_resolver(plan)


def _mount_resolver(plan: Plan) -> None:
    """Programs in the fabric ask the cluster's DNS. No search list: agents would append it to that of every pod."""
    text = f"nameserver {plan.dns_service}\n"
    target = Path(os.path.realpath("/etc/resolv.conf"))
    if target.is_relative_to("/run"):  # systemd-resolved keeps the file there: our /run is empty, so it can be written
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    elif target.exists():
        own = Path("/run/resolv.conf")
        own.write_text(text)
        namespaces.mount(str(own), str(target), "", namespaces.MS_BIND)


def explain(error: NetworkError) -> str:
    """One line for the user: what failed and what to do about it."""
    hint = _HINTS.get(error.code)
    return f"{error}; {hint}" if hint else str(error)


def wait_gone(pidfd: int, timeout_s: float) -> None:
    """Wait until the process behind `pidfd` has ended; PilotageError when it has not in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        raise PilotageError(f"a process of the cluster did not end within {timeout_s:.0f} s; try again")
