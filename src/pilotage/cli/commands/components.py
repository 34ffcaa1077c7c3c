"""One component alone, against any cluster: `pilotage proxy --kubeconfig F --node N` and its siblings.

Each command builds the component's own Config from flags and runs it until SIGTERM or Ctrl-C. What `up` does for a
cluster on this machine, a unit file or a manifest does elsewhere with these.
"""

import signal
from pathlib import Path
from typing import Annotated

import typer

from pilotage.cli.options import Kubeconfig, LogLevel, Node
from pilotage.cli.running import Ready, run_client

Listen = Annotated[str, typer.Option("--listen", help="ADDRESS:PORT to listen on.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command(epilog="Example: pilotage controllers --kubeconfig admin.kubeconfig")(controllers)
    app.command(epilog="Example: pilotage scheduler --kubeconfig scheduler.kubeconfig")(scheduler)
    app.command(epilog="Example: pilotage agent --kubeconfig agent.kubeconfig --node worker-1 --node-ip 10.0.0.5")(
        agent
    )
    app.command(epilog="Example: pilotage loadbalancer --kubeconfig lb.kubeconfig --node worker-1 --interface eth0")(
        loadbalancer
    )
    app.command(epilog="Example: pilotage gateway --kubeconfig gateway.kubeconfig --address 192.0.2.10")(gateway)


def controllers(
    kubeconfig: Kubeconfig,
    root_ca: Annotated[Path | None, typer.Option(help="PEM file to publish in every namespace.")] = None,
    cluster_cidr: Annotated[
        list[str] | None, typer.Option(help="Pod range to share out among nodes; may be repeated.")
    ] = None,
    log_level: LogLevel = "info",
) -> int:
    """Run the control loops of a cluster."""
    from pilotage.controllers import Config, run

    config = Config(root_ca=read_text(root_ca) if root_ca else "", cluster_cidrs=tuple(cluster_cidr or ()))
    return run_client("controllers", log_level, kubeconfig, lambda client, ready: run(config, client, on_ready=ready))


def scheduler(
    kubeconfig: Kubeconfig,
    scheduler_name: Annotated[str, typer.Option(help="Serve Pods whose schedulerName is this.")] = "default-scheduler",
    log_level: LogLevel = "info",
) -> int:
    """Run the scheduler of a cluster."""
    from pilotage.scheduler import Config, run

    config = Config(scheduler_name=scheduler_name)
    return run_client("scheduler", log_level, kubeconfig, lambda client, ready: run(config, client, on_ready=ready))


def agent(
    kubeconfig: Kubeconfig,
    node: Node,
    node_ip: Annotated[str, typer.Option(help="This node's address, as others reach it; or IPV4,IPV6.")],
    pod_cidr: Annotated[
        str, typer.Option(help="Addresses for this node's pods; a range, or one of each family with a comma.")
    ] = "10.244.1.0/24",
    cluster_cidr: Annotated[str, typer.Option(help="Addresses of all pods.")] = "10.244.0.0/16",
    cluster_dns: Annotated[str, typer.Option(help="Address of the cluster's DNS; or IPV4,IPV6.")] = "10.96.0.10",
    data_dir: Annotated[Path, typer.Option(help="Pods' state, volumes, logs, images.")] = Path(
        "/var/lib/pilotage-agent"
    ),
    run_dir: Annotated[Path, typer.Option(help="Namespaces and running containers.")] = Path("/run/pilotage-agent"),
    static_pods: Annotated[
        Path | None, typer.Option(help="Run the pods in this directory's files, with or without the API.")
    ] = None,
    crash_backoff_max: Annotated[
        float,
        typer.Option(min=1, max=300, help="The longest delay, in seconds, between starts of a failing container."),
    ] = 300.0,
    image_backoff_max: Annotated[
        float, typer.Option(min=1, help="The longest delay, in seconds, between pulls of an image that does not come.")
    ] = 300.0,
    shutdown_grace: Annotated[
        float, typer.Option(help="SIGTERM means that the machine goes down: end all pods in so many seconds.")
    ] = 0.0,
    shutdown_grace_critical: Annotated[
        float, typer.Option(help="Of these, the seconds at the end that are for critical pods.")
    ] = 0.0,
    shutdown_by_priority: Annotated[
        str, typer.Option(help="Instead, seconds by priority: PRIORITY=SECONDS,… from the lowest.")
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option(help="Serving certificate; needed for logs and exec.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Authority of the API server's client certificate.")] = None,
    log_level: LogLevel = "info",
) -> int:
    """Run the pods of one node."""
    from pilotage.agent import Config, run
    from pilotage.client import Client

    config = Config(
        node=node,
        node_ip=node_ip.partition(",")[0],
        second_node_ip=node_ip.partition(",")[2],
        pod_cidr=pod_cidr.partition(",")[0],
        second_pod_cidr=pod_cidr.partition(",")[2],
        cluster_cidr=cluster_cidr,
        cluster_dns=tuple(cluster_dns.split(",")),
        data_dir=data_dir.absolute(),
        run_dir=run_dir.absolute(),
        cgroup_parent=f"/pilotage/agent-{node}",
        static_pods_dir=static_pods.absolute() if static_pods is not None else None,
        crash_backoff_max_s=crash_backoff_max,
        image_backoff_max_s=image_backoff_max,
        shutdown_grace_s=shutdown_grace,
        shutdown_grace_critical_s=shutdown_grace_critical,
        shutdown_by_priority=_periods(shutdown_by_priority),
        serving_cert=tls_cert,
        serving_key=tls_key,
        client_ca=client_ca,
    )

    async def main(client: Client, ready: Ready) -> None:
        import asyncio

        going_down = asyncio.Event()
        if config.shutdown:  # Ctrl-C still ends the agent alone
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, going_down.set)
        await run(config, client, on_ready=ready, going_down=going_down)

    return run_client("agent", log_level, kubeconfig, main, spawns_processes=True)


def _periods(text: str) -> tuple[tuple[int, float], ...]:
    """`0=30,2000000000=10` → pairs."""
    from pilotage.kit import UsageError

    try:
        pairs = [one.split("=") for one in text.split(",") if one]
        return tuple((int(priority), float(seconds)) for priority, seconds in pairs)
    except ValueError:
        raise UsageError(f"--shutdown-by-priority {text!r} must be PRIORITY=SECONDS, separated by commas") from None


def gateway(
    kubeconfig: Kubeconfig,
    address: Annotated[
        str, typer.Option(help="What Ingress statuses say; or IPV4,IPV6; empty: they are not written.")
    ] = "",
    listen_http: Annotated[
        str, typer.Option(help="ADDRESS:PORT for HTTP; several with commas; empty: none.")
    ] = "0.0.0.0:80",
    listen_https: Annotated[
        str, typer.Option(help="ADDRESS:PORT for HTTPS; several with commas; empty: none.")
    ] = "0.0.0.0:443",
    run_dir: Annotated[Path, typer.Option(help="For sockets; made with mode 0700.")] = Path("pilotage-gateway"),
    envoy: Annotated[Path | None, typer.Option(help="Envoy's binary. [default: the installed one]")] = None,
    log_level: LogLevel = "info",
) -> int:
    """Run the gateway and its Envoy."""
    from pilotage.gateway import Config, run

    config = Config(
        run_dir=run_dir.absolute(),
        addresses=tuple(filter(None, address.split(","))),
        listen_http=tuple(parse_listen(each) for each in listen_http.split(",") if each),
        listen_https=tuple(parse_listen(each) for each in listen_https.split(",") if each),
        envoy=envoy,
    )
    return run_client("gateway", log_level, kubeconfig, lambda client, ready: run(config, client, on_ready=ready))


def loadbalancer(
    kubeconfig: Kubeconfig,
    pool: Annotated[
        list[str] | None, typer.Option(help="Assign addresses from this CIDR or FIRST-LAST range; once a cluster.")
    ] = None,
    node: Node = "",
    interface: Annotated[str, typer.Option(help="Answer neighbours on this link for addresses of --node.")] = "",
    log_level: LogLevel = "info",
) -> int:
    """Assign load balancer addresses (--pool), or answer for them on one node (--node and --interface), or both."""
    from pilotage.client import Client
    from pilotage.kit.tasks import task_set
    from pilotage.loadbalancer import AnnouncerConfig, AssignerConfig, run_announcer, run_assigner

    if bool(node) != bool(interface) or not (pool or node):
        raise typer.BadParameter("give --pool, or --node with --interface, or all three")

    async def main(client: Client, ready: Ready) -> None:
        async with task_set() as tasks:
            if pool:
                config = AssignerConfig(pools=tuple(pool))
                tasks.start(run_assigner(config, client, on_ready=ready), name="assigner")
            if node:
                neighbours = AnnouncerConfig(node=node, interface=interface)
                tasks.start(run_announcer(neighbours, client, on_ready=ready), name="announcer")
            await tasks.wait()

    return run_client("loadbalancer", log_level, kubeconfig, main)


def parse_listen(text: str) -> tuple[str, int]:
    """ADDRESS:PORT, an IPv6 address in brackets; a usage error else."""
    import ipaddress

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
        if not 0 <= number <= 65535:
            raise ValueError(port)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:6443") from None
    return host, number


def read_text(path: Path) -> str:
    """A file's text; UsageError when it cannot be read."""
    from pilotage.kit import UsageError

    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
