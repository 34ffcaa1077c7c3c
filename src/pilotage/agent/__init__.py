"""The agent runs the pods of one node: the kubelet's role.

Purpose: take the Pods bound to this node from the API, run their containers with runc, keep them as their
specification says, and tell the API how they are.
Inputs → outputs: Pods, Services, Nodes, ConfigMaps, Secrets → namespaces, containers, volumes, routes; pod and node
status, leases, events; logs and exec on the Agent API.
Invariants: no container is started twice or lost across a kill of the agent; restart counts never fall; a finished pod
starts nothing; no container sees the cluster's keys; nothing of a pod is left when it is gone.
Reading order: `core` (the pod state machine), `worker` (one pod's shell), `sandbox`, `containers`, `container_setup`,
`runtime`, `pod_workers` (all pods of the node), `agent`; for what pods share `housekeeping` (eviction, images, logs,
control groups) and `meter`; for streams `server`, `remote`, `port_forward`, `spdy_session`.
Specifications: Kubernetes "Pod Lifecycle", "Nodes", "Volumes"; OCI runtime and image specifications; CRI log format;
KEP-277, KEP-753, KEP-589, KEP-580, KEP-1205, KEP-1287, KEP-2254, KEP-2570, KEP-2712, KEP-2727, KEP-2837,
KEP-4006, KEP-4603.
"""

from pilotage.agent.agent import run
from pilotage.agent.config import Config
from pilotage.agent.core.eviction import Settings as EvictionSettings
from pilotage.agent.core.garbage import Policy as ImagePolicy
from pilotage.agent.images import Image, ImageError, image_list, image_load, image_remove
from pilotage.agent.runtime.cgroup import remove_all as remove_cgroups

__all__ = [
    "Config",
    "EvictionSettings",
    "Image",
    "ImageError",
    "ImagePolicy",
    "image_list",
    "image_load",
    "image_remove",
    "remove_cgroups",
    "run",
]
