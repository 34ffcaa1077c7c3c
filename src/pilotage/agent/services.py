"""What all workers of a node share, joined once by the agent.

Stands apart so that a pod's worker and its parts can name it without knowing each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotage.agent.checks import Checker
from pilotage.agent.container_setup import ContainerSetup
from pilotage.agent.core import resolver
from pilotage.agent.core.admission import Rejection
from pilotage.agent.core.crash_backoff import Ceilings
from pilotage.agent.host_ports import HostPorts
from pilotage.agent.image_pull import ImagePuller
from pilotage.agent.memory import PodMemory
from pilotage.agent.mounts import Mounts
from pilotage.agent.pod_network import PodNetwork
from pilotage.agent.references import References
from pilotage.agent.rootfs import RootFSMaker
from pilotage.agent.runtime import Runtime
from pilotage.agent.user_namespaces import UserNamespaces
from pilotage.agent.volumes import Volumes
from pilotage.api.core_v1 import Pod
from pilotage.client import Client, EventRecorder
from pilotage.kit.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeServices:
    """What all workers of a node share."""

    client: Client
    events: EventRecorder
    runtime: Runtime
    network: PodNetwork
    host_ports: HostPorts
    volumes: Volumes
    references: References
    images: ImagePuller
    setup: ContainerSetup
    roots: RootFSMaker
    mounts: Mounts
    users: UserNamespaces
    checker: Checker
    memory: PodMemory
    judge_resize: Callable[[Pod], Rejection | None]  # whether the node has room for what the pod asks for now
    room_changed: Callable[[], None]  # a pod needs less of the node than before
    open_groups: Callable[[Pod], None]  # make the pod's control groups, or correct them
    ceilings: Ceilings  # of delays between tries
    clock: Clock
    run_dir: Path
    node_ips: tuple[str, ...]  # of each family one, the first is the node's
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    node_resolver: Callable[[], resolver.ResolvConf]
