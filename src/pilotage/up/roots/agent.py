"""The agent of one node, in the node's network namespace."""

import asyncio
import signal
import zlib
from pathlib import Path
from typing import Any

from pilotage.agent import Config, EvictionSettings, ImagePolicy, run
from pilotage.api import quantity
from pilotage.api.core_v1 import Taint
from pilotage.client import Client
from pilotage.up.core.agent_config import AgentConfig
from pilotage.up.launch import Launch

SPAWNS_PROCESSES = True
# Differs from a kubelet's defaults, which are shares of a disk: here it is the disk of whoever tries a cluster, mostly
# full of other things, and shared by all nodes; what a user has loaded must not go because his disk is well used.
LEFT_MIN = {"memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi"}
# Of 65,536 ids each; range 0 is the machine's own, the last one ends where numbers do.
_RANGES, _RANGES_OF_NODE = 65_534, 256
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
        roots_dir=Path("/run/roots", node.name),  # the fabric's own /run
        user_ranges=user_ranges(layout.name, plan.nodes.index(node)),
        **settings(node.config.agent),
        labels={ZONE: node.config.zone, REGION: node.config.region, **node.config.labels},
        taints=tuple(Taint(key=taint.key, value=taint.value, effect=taint.effect) for taint in node.config.taints),
        serving_cert=layout.credentials / f"agent-{node.name}.crt",
        serving_key=layout.credentials / f"agent-{node.name}.key",
        client_ca=layout.credentials / "ca.crt",
    )
    credentials = launch.kubeconfig(f"agent-{node.name}")
    async with Client.from_kubeconfig(credentials, user_agent=f"pilotage-agent/{node.name}") as client:
        going_down = asyncio.Event()
        if config.shutdown:  # the supervisor sends this when the cluster is stopped, and waits
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, going_down.set)
        await run(config, client, on_ready=launch.on_ready, going_down=going_down)


def user_ranges(cluster: str, position: int) -> tuple[int, int]:
    """Ids for the pods of the node at `position`, other ones than any other node of the cluster has.

    Clusters of one machine begin at different places; that two meet is unlikely, and costs them no more than what
    container engines that know no user namespaces never have.
    """
    slots = _RANGES // _RANGES_OF_NODE
    slot = (zlib.crc32(cluster.encode()) + position) % slots
    return 1 + slot * _RANGES_OF_NODE, (slot + 1) * _RANGES_OF_NODE


def settings(given: AgentConfig) -> dict[str, Any]:
    """What a user's configuration says, as arguments of the agent's; what it leaves out keeps the agent's default."""
    periods = given.shutdown_by_priority
    size = given.container_log_max_size
    plain = {
        "static_pods_dir": Path(given.static_pod_path) if given.static_pod_path else None,
        "pods_max": given.max_pods,
        "crash_backoff_max_s": given.crash_backoff_max_seconds,
        "image_backoff_max_s": given.image_backoff_max_seconds,
        "shutdown_grace_s": given.shutdown_grace_seconds,
        "shutdown_grace_critical_s": given.shutdown_grace_critical_seconds,
        "shutdown_by_priority": tuple((one.priority, one.seconds) for one in periods) if periods else None,
        "kube_reserved": given.kube_reserved,
        "system_reserved": given.system_reserved,
        "log_bytes_max": quantity.whole(size) if size else None,
        "log_files_max": given.container_log_max_files,
    }
    eviction = {
        "hard": given.eviction_hard if given.eviction_hard is not None else LEFT_MIN,
        "soft": given.eviction_soft,
        "soft_grace_s": given.eviction_soft_grace_seconds,
        "minimum_reclaim": given.eviction_minimum_reclaim,
        "pressure_transition_s": given.eviction_pressure_transition_seconds,
        "pod_grace_s_max": given.eviction_max_pod_grace_seconds,
    }
    high = given.image_gc_high_percent if given.image_gc_high_percent is not None else 100
    images = {"high_percent": high, "low_percent": given.image_gc_low_percent}
    return {
        **_said(plain),
        "eviction": EvictionSettings(**_said(eviction)),
        "image_gc": ImagePolicy(**_said(images)),
    }


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
