"""What the agent is told when it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.agent.core import shutdown
from pilotage.agent.core.eviction import Settings as EvictionSettings
from pilotage.agent.core.garbage import Policy as ImagePolicy
from pilotage.api.core_v1 import Taint


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One node. Directories are made with mode 0700 if they do not exist."""

    node: str
    node_ip: str
    pod_cidr: str
    # Of the other family, where pods have an address of each; empty: they have one.
    second_node_ip: str = ""
    second_pod_cidr: str = ""
    cluster_dns: tuple[str, ...] = ("10.96.0.10",)
    cluster_domain: str = "cluster.local"
    cluster_cidr: str = "10.244.0.0/16"
    data_dir: Path  # survives `down`: pods' state, volumes, logs
    run_dir: Path  # does not: namespaces, running containers; unique per node
    images_dir: Path | None = None  # None: `data_dir`/images; nodes of one machine should share one
    hidden_paths: tuple[Path, ...] = ()  # what no container may see, beside data_dir and run_dir
    cgroup_parent: str = "/pilotage/default"  # "/pilotage/<cluster>"; empty: control groups are left alone
    bridge: str = "cni0"
    static_pods_dir: Path | None = None  # None: none; made if it does not exist
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    port: int = 10250
    serving_cert: Path | None = None  # None: no Agent API (logs and exec do not work)
    serving_key: Path | None = None
    client_ca: Path | None = None
    crash_backoff_max_s: float = 300.0  # between starts of a failing container (maxContainerRestartPeriod)
    image_backoff_max_s: float = 300.0  # between pulls of an image that does not come
    # How pods end when the machine goes down; without any of these they are left alone.
    shutdown_grace_s: float = 0.0  # for all of them together (shutdownGracePeriod)
    shutdown_grace_critical_s: float = 0.0  # the last part of it, for critical ones (shutdownGracePeriodCriticalPods)
    shutdown_by_priority: tuple[tuple[int, float], ...] = ()  # instead: priority and seconds, by classes of priority
    pods_max: int = 110
    # Where the roots of pods with users of their own are mounted: a way to it must be open to anybody (mode 0711).
    roots_dir: Path | None = None  # None: beside `run_dir`; made if it does not exist
    # Of these pods: each has a range of 65,536 ids, by number from the first to the last of these.
    # Agents of one machine should have different ones.
    user_ranges: tuple[int, int] = (1, 1024)
    # Kept from pods: for what runs the node, and for what else runs on the machine. By resource, as quantities.
    kube_reserved: Mapping[str, str] = field(default_factory=dict)
    system_reserved: Mapping[str, str] = field(default_factory=dict)
    eviction: EvictionSettings = field(default_factory=EvictionSettings)
    image_gc: ImagePolicy = field(default_factory=ImagePolicy)
    garbage_period_s: float = 300.0  # between looks at images, as often as the kubelet looks
    log_bytes_max: int = 10 * 1024 * 1024  # of one container's current log; then it is put aside (containerLogMaxSize)
    log_files_max: int = 5  # of one container, the current one among them (containerLogMaxFiles)
    housekeeping_s: float = 10.0  # between looks at sizes, pressure and garbage, as often as the kubelet looks

    @property
    def node_ips(self) -> tuple[str, ...]:
        return (self.node_ip, self.second_node_ip) if self.second_node_ip else (self.node_ip,)

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return (self.pod_cidr, self.second_pod_cidr) if self.second_pod_cidr else (self.pod_cidr,)

    @property
    def allocatable_rules(self) -> dict[str, Mapping[str, str]]:
        """Arguments of `core.allocatable`."""
        return {
            "kube_reserved": self.kube_reserved,
            "system_reserved": self.system_reserved,
            "eviction_hard": self.eviction.hard,
        }

    @property
    def shutdown(self) -> tuple[shutdown.Period, ...]:
        """The periods of a shutdown; empty when none was asked for."""
        if self.shutdown_by_priority:
            return tuple(shutdown.Period(priority=one, grace_s=grace_s) for one, grace_s in self.shutdown_by_priority)
        return shutdown.two_periods(self.shutdown_grace_s, self.shutdown_grace_critical_s)

    @property
    def roots(self) -> Path:
        """Where roots are mounted that others than the node's users must find."""
        return self.roots_dir or self.run_dir.with_name(f"{self.run_dir.name}-roots")

    @property
    def images(self) -> Path:
        """Where the image store is."""
        return self.images_dir or self.data_dir / "images"
