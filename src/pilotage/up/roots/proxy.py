"""The service proxy of one node, and who answers there for load balancer addresses, in the node's network namespace.

One process because both act on the same objects and the second is idle nearly always.
"""

from pilotage.client import Client
from pilotage.kit.tasks import task_set
from pilotage.loadbalancer import AnnouncerConfig, run_announcer
from pilotage.proxy import Config, run
from pilotage.up.core.plan import NODE_UPLINK
from pilotage.up.launch import Launch


async def serve(launch: Launch) -> None:
    """Keep this node's rules true and its addresses answered until cancelled; ready when the rules are loaded."""
    node = launch.node.name
    config = Config(node=node, cluster_cidr=launch.plan.pod_cidr)
    announcer = AnnouncerConfig(node=node, interface=NODE_UPLINK)
    async with (
        Client.from_kubeconfig(launch.kubeconfig("proxy"), user_agent=f"pilotage-proxy/{node}") as client,
        Client.from_kubeconfig(launch.kubeconfig("loadbalancer"), user_agent=f"pilotage-loadbalancer/{node}") as speaker,
        task_set() as tasks,
    ):
        tasks.start(run_announcer(announcer, speaker), name="announcer")
        await run(config, client, on_ready=launch.on_ready)
