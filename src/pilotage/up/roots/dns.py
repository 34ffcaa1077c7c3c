"""The DNS server of one node, on the node's own addresses; the proxy leads the cluster's DNS address here."""

from pilotage.client import Client
from pilotage.dns import Config, run
from pilotage.up.launch import Launch


async def serve(launch: Launch) -> None:
    """Answer this node's questions until cancelled."""
    node, plan = launch.node, launch.plan
    config = Config(
        listen=tuple(f"[{address}]:53" if ":" in address else f"{address}:53" for address in node.addresses),
        zone=plan.domain,
        reverse_cidrs=(*plan.service_cidrs, *plan.pod_cidrs),
        upstreams=launch.config.dns_upstreams,
        config_file=launch.config.dns_config,
        node=node.name,
        publish_service="kube-system/kube-dns",
    )
    async with Client.from_kubeconfig(launch.kubeconfig("dns"), user_agent=f"pilotage-dns/{node.name}") as client:
        await run(config, client, on_ready=launch.on_ready)
