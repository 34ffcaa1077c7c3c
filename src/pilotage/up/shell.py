"""Runs a command inside a cluster's fabric, where ClusterIPs, NodePorts and load balancer addresses are reachable.

Apart from the supervisor because it is the user's own process that enters. Called by `pilotage shell`. It joins the
namespaces of the fabric's PID 1, so the command ends with the cluster at the latest.

Specification: setns(2) with a pidfd, which joins several namespaces in one step.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilotage.kit import PilotageError
from pilotage.network import NetworkError, namespaces
from pilotage.up.inventory import RunningCluster
from pilotage.up.process import die_with_parent

# As a POSIX shell reports them (XCU 2.8.2).
_NOT_FOUND, _NOT_EXECUTABLE, _SIGNAL_BASE = 127, 126, 128


def run_inside(
    cluster: RunningCluster, command: Sequence[str], *, node: str = "", environment: Mapping[str, str]
) -> int:
    """Run `command` in the fabric, or in `node`'s network, with this terminal; its exit code, 128+n for signal n.

    KUBECONFIG in its environment is one that works there. PilotageError when the fabric cannot be entered. The calling
    process must have a single thread, and is inside afterwards.
    """
    if node and node not in cluster.nodes:
        raise PilotageError(f"no node {node} in cluster {cluster.layout.name}: it has {', '.join(cluster.nodes)}")
    directory = Path.cwd()
    _enter(cluster.zygote, cluster.layout.name)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()  # only a child is in the PID namespace
    if child == 0:
        code = _NOT_EXECUTABLE
        try:
            die_with_parent()
            if node:
                namespaces.enter(cluster.layout.namespace(node))
            _change_directory(directory)
            own = inside_environment(cluster)
            os.execvpe(command[0], list(command), {**environment, **own})  # noqa: S606
        except FileNotFoundError:
            code = _NOT_FOUND
            sys.stderr.write(f"pilotage: {command[0]}: no such command\n")
        except (OSError, NetworkError) as error:
            sys.stderr.write(f"pilotage: {command[0]}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)
    # The terminal sends these to the command as well, and it decides what they mean.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # These come to us alone; handed on, they let the command end in its own way.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SIGNAL_BASE - code


def inside_environment(cluster: RunningCluster) -> dict[str, str]:
    """What a command inside needs: credentials that work there, and the names of the default namespace.

    LOCALDOMAIN is the search list of one process (resolv.conf(5)); in the file it would reach every pod.
    """
    domain = cluster.domain
    return {
        "KUBECONFIG": str(cluster.layout.credential("admin")),
        "LOCALDOMAIN": f"default.svc.{domain} svc.{domain} {domain}",
    }


def _enter(pid: int, name: str) -> None:
    kinds = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC
    if os.getuid() != 0:
        kinds |= namespaces.CLONE_NEWUSER
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        raise PilotageError(f"cluster {name} has just ended") from error
    try:
        namespaces.setns(fd, kinds)
    except NetworkError as error:
        raise PilotageError(f"cannot enter cluster {name}: {error}; run it as the user who started it") from error
    finally:
        os.close(fd)


def _change_directory(directory: Path) -> None:
    """Back to where the user is, if that exists inside; joining a mount namespace moves to its root."""
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
