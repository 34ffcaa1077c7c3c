"""When a node runs short: which conditions it shows, and which pod has to go.

Stands apart because all of it is counting and order: signals, thresholds and usages in, a verdict out. The shell
(`evictor`) reads the signals, frees what belongs to nobody and ends the pod that comes first, one at a time. Source:
"Node-pressure Eviction" in the Kubernetes documentation. Leaves out the taints, which the node lifecycle controller
makes of the conditions, and limits that a pod sets itself (`ephemeral`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from pilotage.agent.core import qos
from pilotage.api import quantity
from pilotage.api.codec import Value
from pilotage.api.core_v1 import Pod
from pilotage.kit.errors import PilotageError

MEMORY, ALLOCATABLE_MEMORY = "memory.available", "allocatableMemory.available"
NODEFS, NODEFS_INODES = "nodefs.available", "nodefs.inodesFree"
IMAGEFS, IMAGEFS_INODES = "imagefs.available", "imagefs.inodesFree"
PIDS = "pid.available"
# In the order in which pressure is relieved: memory is the most urgent. What each is a condition of, and a shortage of.
SIGNALS = {
    MEMORY: ("MemoryPressure", "memory"),
    ALLOCATABLE_MEMORY: ("MemoryPressure", "memory"),
    NODEFS: ("DiskPressure", "ephemeral-storage"),
    NODEFS_INODES: ("DiskPressure", "inodes"),
    IMAGEFS: ("DiskPressure", "ephemeral-storage"),
    IMAGEFS_INODES: ("DiskPressure", "inodes"),
    PIDS: ("PIDPressure", "pids"),
}
CONDITIONS = ("MemoryPressure", "DiskPressure", "PIDPressure")
# Of a pod that is evicted at once: enough for its processes to hear of it.
IMMEDIATE_GRACE_S = 1.0


class ThresholdError(PilotageError):
    """A threshold of the configuration that cannot be read; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One signal, now: bytes, inodes or processes."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Less than this is too little."""

    signal: str
    amount: str  # a quantity, or a share of the capacity ("10%")
    grace_s: float = 0.0  # 0: hard
    minimum_reclaim: str = ""  # how much more must be there before it is enough again; empty: nothing more

    @property
    def is_hard(self) -> bool:
        return self.grace_s == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The kubelet's defaults. By signal."""

    hard: Mapping[str, str] = field(
        default_factory=lambda: {
            MEMORY: "100Mi",
            NODEFS: "10%",
            NODEFS_INODES: "5%",
            IMAGEFS: "15%",
            IMAGEFS_INODES: "5%",
        }
    )
    soft: Mapping[str, str] = field(default_factory=dict)
    soft_grace_s: Mapping[str, float] = field(default_factory=dict)  # one for each soft threshold
    minimum_reclaim: Mapping[str, str] = field(default_factory=dict)
    pressure_transition_s: float = 300.0  # a condition stays for so long after its cause is gone
    pod_grace_s_max: float = 0.0  # of pods evicted by a soft threshold

    def thresholds(self) -> tuple[Threshold, ...]:
        """In the order in which pressure is relieved. Raises `ThresholdError`."""
        found = [self._threshold(signal, amount, 0.0) for signal, amount in self.hard.items()]
        for signal, amount in self.soft.items():
            if self.soft_grace_s.get(signal, 0.0) <= 0.0:
                raise ThresholdError(f"soft eviction threshold {signal} needs a grace period")
            found.append(self._threshold(signal, amount, self.soft_grace_s[signal]))
        if MEMORY in self.hard:
            found.append(self._threshold(ALLOCATABLE_MEMORY, self.hard[MEMORY], 0.0))
        order = list(SIGNALS)
        return tuple(sorted(found, key=lambda one: order.index(one.signal)))

    def _threshold(self, signal: str, amount: str, grace_s: float) -> Threshold:
        if signal not in SIGNALS:
            raise ThresholdError(f"unknown eviction signal {signal}")
        reclaim = self.minimum_reclaim.get(signal, "")
        for text in filter(None, (amount, reclaim)):
            try:
                whole_of(text, 100)
            except quantity.QuantityError as error:
                raise ThresholdError(f"eviction threshold {signal}: {text!r} is no quantity and no share") from error
        return Threshold(signal=signal, amount=amount, grace_s=grace_s, minimum_reclaim=reclaim)


class PressureState(Value):
    """What has to be remembered between two looks. Times are monotonic seconds."""

    first_met: Mapping[str, float] = msgspec.field(default_factory=dict)  # by threshold: since when it has been met
    last_seen: Mapping[str, float] = msgspec.field(default_factory=dict)  # by condition: when it last had a cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one look found."""

    state: PressureState
    conditions: frozenset[str]  # those that hold
    pressing: tuple[Threshold, ...]  # those whose grace is over, the most urgent first


def whole_of(amount: str, capacity: int) -> int:
    """A quantity, or a share of `capacity`. Raises `QuantityError`."""
    if amount.endswith("%"):
        return int(capacity * quantity.parse(amount[:-1]) / 100)
    return quantity.whole(amount)


def is_met(threshold: Threshold, seen: Mapping[str, Observation], *, before: bool = False) -> bool:
    """Whether too little is there; one that was met before stays so until the minimum was reclaimed as well."""
    now = seen.get(threshold.signal)
    if now is None or now.capacity == 0:
        return False
    least = whole_of(threshold.amount, now.capacity)
    if before and threshold.minimum_reclaim:
        least += whole_of(threshold.minimum_reclaim, now.capacity)
    return now.available < least


def look(
    thresholds: Sequence[Threshold],
    settings: Settings,
    seen: Mapping[str, Observation],
    state: PressureState,
    now: float,
) -> Verdict:
    """One look at the signals. `now` is monotonic."""
    first_met: dict[str, float] = {}
    held = {name: at for name, at in state.last_seen.items() if now - at < settings.pressure_transition_s}
    met: dict[str, float] = {}
    pressing = []
    for threshold in thresholds:
        key = f"{threshold.signal}<{threshold.amount}"
        if not is_met(threshold, seen, before=key in state.first_met):
            continue
        first_met[key] = state.first_met.get(key, now)
        # The condition is shown at once, also while a soft threshold's grace still runs.
        met[SIGNALS[threshold.signal][0]] = now
        if now - first_met[key] >= threshold.grace_s:
            pressing.append(threshold)
    last_seen = held | met
    return Verdict(
        state=PressureState(first_met=first_met, last_seen=last_seen),
        conditions=frozenset(last_seen),
        pressing=tuple(pressing),
    )


# ── whose turn it is ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one pod, or one of its containers, uses now."""

    memory_bytes: int = 0
    disk_bytes: int = 0
    inodes: int = 0
    processes: int = 0


def rank(pods: Sequence[tuple[Pod, Usage]], signal: str) -> list[Pod]:
    """First who uses more than he asked for, then the lower priority, then who is further above his request.

    Processes and inodes cannot be asked for: there priority comes first. Critical pods are left out.
    """

    def key(entry: tuple[Pod, Usage]) -> tuple[bool, int, int, str]:
        pod, usage = entry
        above = _used(usage, signal) - _requested(pod, signal)
        within = above <= 0 and signal in _REQUESTED
        return within, pod.spec.priority, -above, pod.metadata.key

    return [pod for pod, _ in sorted(pods, key=key) if not qos.is_critical(pod)]


_REQUESTED = {
    MEMORY: "memory",
    ALLOCATABLE_MEMORY: "memory",
    NODEFS: "ephemeral-storage",
    IMAGEFS: "ephemeral-storage",
}


def _requested(pod: Pod, signal: str) -> int:
    name = _REQUESTED.get(signal)
    return qos.pod_requests(pod).get(name, 0) if name else 0


def _used(usage: Usage, signal: str) -> int:
    match SIGNALS[signal][1]:
        case "memory":
            return usage.memory_bytes
        case "pids":
            return usage.processes
        case "inodes":
            return usage.inodes
    return usage.disk_bytes


def message(threshold: Threshold, seen: Observation, pod: Pod, containers: Mapping[str, Usage]) -> str:
    """Why the pod had to go, as the kubelet words it."""
    resource = SIGNALS[threshold.signal][1]
    least = whole_of(threshold.amount, seen.capacity)
    text = (
        f"The node was low on resource: {resource}. "
        f"Threshold quantity: {_shown(resource, least)}, available: {_available(resource, seen.available)}. "
    )
    for container in pod.spec.containers:
        used = _used(containers.get(container.name, Usage()), threshold.signal)
        asked = qos.amount(resource, container.resources.requests.get(resource, "0"))
        if resource in ("memory", "ephemeral-storage") and used > asked:
            text += (
                f"Container {container.name} was using {_available(resource, used)}, "
                f"request is {container.resources.requests.get(resource, '0')}, has larger consumption of {resource}. "
            )
    return text


def _shown(resource: str, value: int) -> str:
    return quantity.render(value, binary=resource in ("memory", "ephemeral-storage"))


def _available(resource: str, value: int) -> str:
    """Measured bytes are shown in Ki, as the kubelet shows them."""
    return f"{value // 1024}Ki" if resource in ("memory", "ephemeral-storage") else str(value)
