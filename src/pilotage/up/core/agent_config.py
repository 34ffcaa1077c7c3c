"""What a user may say about the agents of a cluster: for all of them, and for one node where that differs.

Apart from `core.config` because it is a table of its own, and stated twice. Names are those of KubeletConfiguration
(kubelet.config.k8s.io/v1beta1) where it has one, times in seconds. The agent itself is not imported here: the
supervisor checks a configuration and runs no component. Leaves out what a cluster decides by itself: addresses,
directories, certificates.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from pilotage.api import quantity

RESERVABLE = ("cpu", "memory", "ephemeral-storage")
# "Node-pressure Eviction" in the Kubernetes documentation.
SIGNALS = (
    "memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree",
    "pid.available",
)  # fmt: skip
CRASH_BACKOFF_S_MAX = 300.0  # KubeletConfiguration.crashLoopBackOff

Problem = tuple[str, str]  # where, as a path below the section; what is wrong


class ShutdownPeriod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Pods of at least this priority end within so many seconds."""

    priority: int
    seconds: float


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """None: as the cluster says, and where it says nothing, the agent's own default."""

    static_pod_path: str | None = None  # directory on this machine; every node runs the pods of its files
    max_pods: int | None = None
    crash_backoff_max_seconds: float | None = None  # between starts of a failing container
    image_backoff_max_seconds: float | None = None  # between pulls of an image that does not come
    # How pods end when the cluster is stopped; without any of these they are killed with it.
    shutdown_grace_seconds: float | None = None  # for all of them together
    shutdown_grace_critical_seconds: float | None = None  # the last part of it, for critical ones
    shutdown_by_priority: tuple[ShutdownPeriod, ...] | None = None  # instead
    # Kept from pods, by resource.
    kube_reserved: dict[str, str] | None = None
    system_reserved: dict[str, str] | None = None
    # By signal: a quantity or a share. A map that is given replaces the default one.
    eviction_hard: dict[str, str] | None = None
    eviction_soft: dict[str, str] | None = None
    eviction_soft_grace_seconds: dict[str, float] | None = None  # one for each soft threshold
    eviction_minimum_reclaim: dict[str, str] | None = None
    eviction_pressure_transition_seconds: float | None = None
    eviction_max_pod_grace_seconds: float | None = None
    image_gc_high_percent: int | None = None
    image_gc_low_percent: int | None = None
    container_log_max_size: str | None = None
    container_log_max_files: int | None = None

    @property
    def shutdown_s(self) -> float:
        """How long pods may take to end when the cluster is stopped; 0: no time at all."""
        if self.shutdown_by_priority:
            return sum(period.seconds for period in self.shutdown_by_priority)
        return self.shutdown_grace_seconds or 0.0


def merged(cluster: AgentConfig, node: AgentConfig) -> AgentConfig:
    """What holds for one node: its own settings, the cluster's where it has none. A map or list counts as a whole."""
    own = {name: value for name in node.__struct_fields__ if (value := getattr(node, name)) is not None}
    return msgspec.structs.replace(cluster, **own)


def problem(config: AgentConfig) -> Problem | None:
    """The first thing wrong with it that its types cannot say."""
    return next((found for check in _CHECKS for found in check(config)), None)


def _paths(config: AgentConfig) -> Iterator[Problem]:
    path = config.static_pod_path
    if path is not None and not path.startswith("/"):
        yield "staticPodPath", f"staticPodPath {path!r} must be an absolute path"


def _numbers(config: AgentConfig) -> Iterator[Problem]:
    bounds: Mapping[str, tuple[float | None, float, float | None]] = {
        "maxPods": (config.max_pods, 1, None),
        "crashBackoffMaxSeconds": (config.crash_backoff_max_seconds, 1, CRASH_BACKOFF_S_MAX),
        "imageBackoffMaxSeconds": (config.image_backoff_max_seconds, 1, None),
        "shutdownGraceSeconds": (config.shutdown_grace_seconds, 0, None),
        "shutdownGraceCriticalSeconds": (config.shutdown_grace_critical_seconds, 0, None),
        "evictionPressureTransitionSeconds": (config.eviction_pressure_transition_seconds, 0, None),
        "evictionMaxPodGraceSeconds": (config.eviction_max_pod_grace_seconds, 0, None),
        "imageGcHighPercent": (config.image_gc_high_percent, 0, 100),
        "imageGcLowPercent": (config.image_gc_low_percent, 0, 100),
        "containerLogMaxFiles": (config.container_log_max_files, 2, None),
    }
    for name, (value, least, most) in bounds.items():
        if value is not None and (value < least or (most is not None and value > most)):
            between = f"at least {least:g}" if most is None else f"between {least:g} and {most:g}"
            yield name, f"{name} {value:g} must be {between}"
    high, low = config.image_gc_high_percent, config.image_gc_low_percent
    if high is not None and low is not None and low >= high:
        yield "imageGcLowPercent", f"imageGcLowPercent {low} must be less than imageGcHighPercent {high}"


def _shutdown(config: AgentConfig) -> Iterator[Problem]:
    total, critical = config.shutdown_grace_seconds or 0.0, config.shutdown_grace_critical_seconds or 0.0
    if critical > total:
        what = f"shutdownGraceCriticalSeconds {critical:g} must be at most shutdownGraceSeconds {total:g}"
        yield "shutdownGraceCriticalSeconds", f"{what}, of which it is a part"
    for position, period in enumerate(config.shutdown_by_priority or ()):
        if period.seconds < 0:
            yield f"shutdownByPriority[{position}].seconds", f"seconds {period.seconds:g} must be at least 0"
    if config.shutdown_by_priority and total:
        yield "shutdownByPriority", "shutdownByPriority stands instead of shutdownGraceSeconds: give one of them"


def _reserved(config: AgentConfig) -> Iterator[Problem]:
    for section, given in (("kubeReserved", config.kube_reserved), ("systemReserved", config.system_reserved)):
        for name, amount in (given or {}).items():
            if name not in RESERVABLE:
                yield f"{section}[{name}]", f"{section}: {name!r} must be one of {', '.join(RESERVABLE)}"
            elif not _is_amount(amount):
                yield f"{section}[{name}]", f"{section}: {name} {amount!r} is no quantity"
    size = config.container_log_max_size
    if size is not None and (not _is_amount(size) or quantity.whole(size) < 1):
        yield "containerLogMaxSize", f"containerLogMaxSize {size!r} is no quantity of bytes"


def _eviction(config: AgentConfig) -> Iterator[Problem]:
    graces = config.eviction_soft_grace_seconds or {}
    maps: Mapping[str, Mapping[str, object]] = {
        "evictionHard": config.eviction_hard or {},
        "evictionSoft": config.eviction_soft or {},
        "evictionSoftGraceSeconds": graces,
        "evictionMinimumReclaim": config.eviction_minimum_reclaim or {},
    }
    for section, given in maps.items():
        for signal, amount in given.items():
            where = f"{section}[{signal}]"
            if signal not in SIGNALS:
                yield where, f"{section}: {signal!r} must be one of {', '.join(SIGNALS)}"
            elif isinstance(amount, str) and not _is_amount(amount.removesuffix("%")):
                yield where, f"{section}: {signal} {amount!r} is no quantity and no share"
    for signal in config.eviction_soft or ():
        if graces.get(signal, 0.0) <= 0.0:
            yield f"evictionSoft[{signal}]", f"evictionSoft: {signal} needs more than 0 of evictionSoftGraceSeconds"


def _is_amount(text: str) -> bool:
    try:
        return quantity.parse(text) >= 0
    except quantity.QuantityError:
        return False


_CHECKS: tuple[Callable[[AgentConfig], Iterator[Problem]], ...] = (_paths, _numbers, _shutdown, _reserved, _eviction)
