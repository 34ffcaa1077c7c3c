"""The life of a cluster: up, down, shell.

Each command reads its arguments, calls `pilotage.up`, and returns an exit code.
"""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.options import DEFAULT_NAME, Name

if TYPE_CHECKING:
    from pilotage.up import ClusterConfig, Layout


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command(epilog="Example: pilotage up --nodes 3 --detach")(up)
    app.command(epilog="Example: pilotage down --name dev")(down)
    app.command(
        epilog="Example: pilotage shell -- curl -s http://10.96.0.1",
        context_settings={"ignore_unknown_options": True},
    )(shell)


def up(
    name: Annotated[str | None, typer.Option("--name", "-n", help="Name of the cluster. [default: pilotage]")] = None,
    nodes: Annotated[int | None, typer.Option(help="How many nodes. [default: 2]")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A YAML file that describes the cluster.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the cluster is ready.")] = False,
    api_port: Annotated[int | None, typer.Option(help="API port on loopback. [default: 6443 or free]")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP ingress port. [default: 8080 or free]")] = None,
    https_port: Annotated[int | None, typer.Option(help="HTTPS ingress port. [default: 8443 or free]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where objects and images survive `down`.")] = None,
    dual_stack: Annotated[
        bool, typer.Option("--dual-stack", help="Nodes, pods and Services have IPv6 addresses, too.")
    ] = False,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. [default: info]")] = None,
) -> int:
    """Start a cluster on this machine; prints the path of its kubeconfig when it is ready.

    Without --detach it runs until Ctrl-C.
    """
    import msgspec

    from pilotage.cli.progress import make_reporter
    from pilotage.up import ClusterConfig, check_config, load_config, make_layout
    from pilotage.up.core.config import IPv6Networks
    from pilotage.up.preflight import preflight
    from pilotage.up.supervisor import supervise

    wanted = load_config(config) if config else ClusterConfig()
    ports = {"api": api_port, "http": http_port, "https": https_port}
    changed = {"name": name, "nodes": nodes, "data_dir": str(data_dir) if data_dir else None, "log_level": log_level}
    wanted = msgspec.structs.replace(
        wanted,
        ports=msgspec.structs.replace(wanted.ports, **{key: port for key, port in ports.items() if port is not None}),
        **{key: value for key, value in changed.items() if value is not None},
    )
    if dual_stack and wanted.networks.ipv6 is None:
        networks = msgspec.structs.replace(wanted.networks, ipv6=IPv6Networks())
        wanted = msgspec.structs.replace(wanted, networks=networks)
    check_config(wanted)
    preflight()
    layout = make_layout(wanted.name, data_dir=wanted.data_dir)
    if detach:
        return _detached(wanted, layout)
    return supervise(wanted, layout, make_reporter())


def _detached(config: "ClusterConfig", layout: "Layout") -> int:
    """Leave the supervisor running in a session of its own; 0 when the cluster is ready."""
    from pilotage.cli.progress import make_reporter
    from pilotage.up.progress import PipeReporter, relay
    from pilotage.up.supervisor import log_to, supervise

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.setsid()
            log_to(layout.logs / "supervisor.log")
            code = supervise(config, layout, PipeReporter(writer))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    try:
        return 0 if relay(reader, make_reporter()) else 1
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise


def down(
    name: Name = DEFAULT_NAME,
    everything: Annotated[bool, typer.Option("--all", help="Stop every cluster of this user.")] = False,
) -> int:
    """Stop a cluster and remove everything but its data directory."""
    from pilotage.kit import PilotageError
    from pilotage.up import bring_down, cluster_names, make_layout

    if everything:
        for one in cluster_names():
            bring_down(make_layout(one))
            sys.stderr.write(f"Cluster {one} is gone.\n")
        return 0
    if not bring_down(make_layout(name)):
        raise PilotageError(f"no cluster named {name}; `pilotage ls` shows what runs")
    sys.stderr.write(f"Cluster {name} is gone.\n")
    return 0


def shell(
    command: Annotated[list[str] | None, typer.Argument(help="What to run; your shell if left out.")] = None,
    name: Name = DEFAULT_NAME,
    node: Annotated[str, typer.Option("--node", help="Run in this node's network instead of the fabric's.")] = "",
) -> int:
    """Run a command inside a cluster, where ClusterIPs, NodePorts and load balancer addresses are reachable.

    KUBECONFIG is set to one that works there; the exit code is the command's.
    """
    from pilotage.up import find_cluster
    from pilotage.up.shell import run_inside

    environment = dict(os.environ)
    # kubectl may be installed beside this interpreter, and `pilotage` is.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '/usr/bin:/bin')}"
    arguments = command or [environment.get("SHELL", "/bin/sh")]
    return run_inside(find_cluster(name), arguments, node=node, environment=environment)
