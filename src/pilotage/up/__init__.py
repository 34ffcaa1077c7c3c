"""A whole cluster on this machine: configuration, fabric, supervisor, and one composition root a process.

Purpose: be the only place that joins concrete parts (with `cli`), so that every other package takes its dependencies
as arguments.

Inputs → outputs: a ClusterConfig → processes in private namespaces, sockets on the host's loopback, a kubeconfig.

Invariants: nothing on the host changes but the run and data directories, control groups of the cluster's own name and
three loopback sockets; however the supervisor ends, the kernel ends everything it started; `down` needs nobody alive.

Reading order: `core.config`, `core.plan`, `core.processes`, `core.state`; then `supervisor`, `fabric`, `zygote`, and
`roots`; `cleanup`, `inventory` and `shell` for what happens afterwards.

Specifications: namespaces(7), pid_namespaces(7), cgroups(7).
"""

from pilotage.up.cleanup import bring_down
from pilotage.up.configuration import check_config, load_config
from pilotage.up.core.config import ClusterConfig, Ports
from pilotage.up.inventory import RunningCluster, cluster_names, find_cluster
from pilotage.up.layout import Layout, make_layout

__all__ = [
    "ClusterConfig",
    "Layout",
    "Ports",
    "RunningCluster",
    "bring_down",
    "check_config",
    "cluster_names",
    "find_cluster",
    "load_config",
    "make_layout",
]
