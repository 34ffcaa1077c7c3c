"""The agent of one node, in the node's network namespace."""

from pathlib import Path

from pilotage.agent import Config, EvictionSettings, ImagePolicy, run
from pilotage.api.core_v1 import Taint
from pilotage.client import Client
from pilotage.up.launch import Launch

SPAWNS_PROCESSES = True
# Differs from a kubelet's defaults, which are shares of a disk: here it is the disk of whoever tries a cluster, mostly
# full of other things, and shared by all nodes; what a user has loaded must not go because his disk is well used.
LEFT_MIN = {"memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi"}
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"


async def serve(launch: Launch) -> None:
    """Run this node's pods until cancelled."""
    node, plan, layout = launch.node, launch.plan, launch.layout
    config = Config(
        node=node.name,
        node_ip=node.address,
        pod_cidr=node.pod_cidr,
        second_node_ip=node.second_address,
        second_pod_cidr=node.second_pod_cidr,
        cluster_dns=plan.dns_services,
        cluster_domain=plan.domain,
        cluster_cidr=plan.pod_cidr,
        data_dir=layout.data / "nodes" / node.name,
        run_dir=layout.scratch / "nodes" / node.name,
        images_dir=layout.images,
        # A pod on the host's file system must see neither credentials nor other clusters' data.
        hidden_paths=(layout.run_base, layout.data.parent, Path("/run")),
        cgroup_parent=f"/{layout.cgroup}/{node.name}",
        eviction=EvictionSettings(hard=LEFT_MIN),
        image_gc=ImagePolicy(high_percent=100),
        labels={ZONE: node.config.zone, REGION: node.config.region, **node.config.labels},
        taints=tuple(Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in node.config.taints),
        serving_cert=layout.credentials / f"agent-{node.name}.crt",
        serving_key=layout.credentials / f"agent-{node.name}.key",
        client_ca=layout.credentials / "ca.crt",
    )
    credentials = launch.kubeconfig(f"agent-{node.name}")
    async with Client.from_kubeconfig(credentials, user_agent=f"pilotage-agent/{node.name}") as client:
        await run(config, client, on_ready=launch.on_ready)
