"""The service proxy alone, and what is done around it: proxy, proxy --cleanup, proxy check.

Apart from the other components because it has commands of its own.
"""

import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.options import Kubeconfig, LogLevel, Node, Output, is_json
from pilotage.cli.printers import print_json
from pilotage.cli.running import run_client

if TYPE_CHECKING:
    from pilotage.proxy import Config

_SHOWN_MAX = 50

ClusterCidr = Annotated[str, typer.Option(help="Addresses of all pods; traffic from elsewhere is masqueraded.")]
Backend = Annotated[
    str,
    typer.Option(help="nftables, iptables (the flavour that the host calls so), iptables-legacy or iptables-nft."),
]
NodePortAddresses = Annotated[
    list[str] | None,
    typer.Option(
        "--nodeport-addresses",
        help="CIDR of this node's addresses that answer on node ports, commas or repeated. [default: all]",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        help="Run the service proxy of one node, or look at what it did.",
        invoke_without_command=True,
        epilog="Example: pilotage proxy --kubeconfig proxy.kubeconfig --node worker-1",
    )
    group.callback()(proxy)
    group.command("check", epilog="Example: pilotage proxy check --kubeconfig proxy.kubeconfig --node worker-1")(check)
    app.add_typer(group, name="proxy")


def proxy(
    context: typer.Context,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Credentials for the cluster's API; required.")
    ] = None,
    node: Annotated[str, typer.Option("--node", help="Name of the Node object this process serves; required.")] = "",
    cluster_cidr: ClusterCidr = "",
    backend: Backend = "nftables",
    nodeport_addresses: NodePortAddresses = None,
    cleanup: Annotated[
        bool, typer.Option("--cleanup", help="Remove every rule that any backend ever made here, and end.")
    ] = False,
    log_level: LogLevel = "info",
) -> int:
    """Run the service proxy of one node."""
    if context.invoked_subcommand is not None:
        return 0
    if cleanup:
        from pilotage.proxy import cleanup as remove_everything

        remove_everything()
        return 0
    from pilotage.proxy import run

    if kubeconfig is None or not node:
        raise typer.BadParameter(f"missing option {'--kubeconfig' if kubeconfig is None else '--node'}")
    config = _config(node, cluster_cidr, backend, nodeport_addresses)
    return run_client("proxy", log_level, kubeconfig, lambda client, ready: run(config, client, on_ready=ready))


def check(
    kubeconfig: Kubeconfig,
    node: Node,
    cluster_cidr: ClusterCidr = "",
    backend: Backend = "nftables",
    nodeport_addresses: NodePortAddresses = None,
    output: Output = "text",
) -> int:
    """Compare the kernel's rules with what the API asks of this node; exit code 1 when they differ.

    Also names what Services ask and cannot have, such as an address that another one has; that is no difference.

    Give the options that the proxy was started with. Changes nothing, and needs no running proxy.
    """
    import asyncio

    from pilotage.client import Client
    from pilotage.proxy import Verdict, make_backend
    from pilotage.proxy import check as compare

    config = _config(node, cluster_cidr, backend, nodeport_addresses)
    as_json = is_json(output)

    async def look() -> Verdict:
        made = make_backend(config)
        try:
            async with Client.from_kubeconfig(kubeconfig, user_agent="pilotage-proxy-check") as client:
                return await compare(node, client, made)
        finally:
            made.close()

    verdict = asyncio.run(look())
    if as_json:
        print_json(
            {
                "node": node,
                "equal": not verdict.differences,
                "resourceVersion": verdict.resource_version,
                "services": verdict.services,
                "differences": [
                    {"family": one.family, "set": one.set, "kind": one.kind, "element": one.element, "count": one.count}
                    for one in verdict.differences
                ],
                "problems": [
                    {"service": one.service, "reason": one.reason, "message": one.message} for one in verdict.problems
                ],
            }
        )
    else:
        differences = sum(one.count for one in verdict.differences)
        said = f"{differences} differences" if differences else "equal"
        sys.stdout.write(f"{node}: {said} at {verdict.resource_version}, {verdict.services} Services\n")
        for one in verdict.differences[:_SHOWN_MAX]:
            sys.stdout.write(f"  {one.text()}\n")
        if len(verdict.differences) > _SHOWN_MAX:
            sys.stdout.write(f"  … and {len(verdict.differences) - _SHOWN_MAX} more\n")
        for problem in verdict.problems[:_SHOWN_MAX]:
            sys.stdout.write(f"  Service {problem.service}: {problem.reason}: {problem.message}\n")
        if len(verdict.problems) > _SHOWN_MAX:
            sys.stdout.write(f"  … and {len(verdict.problems) - _SHOWN_MAX} more problems\n")
    return 1 if verdict.differences else 0


def _config(node: str, cluster_cidr: str, backend: str, nodeport_addresses: list[str] | None) -> "Config":
    from pilotage.proxy import BACKEND_NAMES, Config

    if backend not in BACKEND_NAMES:
        raise typer.BadParameter(f"backend {backend!r} is none of {', '.join(BACKEND_NAMES)}")
    chosen = tuple(part.strip() for text in nodeport_addresses or () for part in text.split(",") if part.strip())
    for text in chosen:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise typer.BadParameter(f"--nodeport-addresses {text!r} is no CIDR, such as 10.0.0.0/8") from None
    return Config(node=node, cluster_cidr=cluster_cidr, backend=backend, node_port_addresses=chosen)
