"""The service proxy of one node and its load balancer announcer, in the node's network namespace.

One process, because both follow the same objects and neither has much to do.
"""

from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AnnouncerConfig, run_announcer
from pilotage.proxy import Config, run
from pilotage.up.launch import Launch

_UNDERLAY_INTERFACE = "eth0"


async def serve(launch: Launch) -> None:
    """Keep this node's rules true and answer for its addresses until cancelled."""
    node = launch.node.name
    ready = launch.ready_with("proxy", "announcer")
    config = Config(node=node, cluster_cidr=",".join(launch.plan.pod_cidrs))
    neighbours = AnnouncerConfig(node=node, interface=_UNDERLAY_INTERFACE)
    async with (
        Client.from_kubeconfig(launch.kubeconfig("proxy"), user_agent=f"pilotage-proxy/{node}") as client,
        Client.from_kubeconfig(launch.kubeconfig("loadbalancer"), user_agent=f"pilotage-loadbalancer/{node}") as other,
        task_set() as tasks,
    ):
        tasks.start(run_announcer(neighbours, other, on_ready=ready["announcer"]), name="announcer")
        await run(config, client, on_ready=ready["proxy"])
