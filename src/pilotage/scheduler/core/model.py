"""What the scheduler knows: pods reduced to what scheduling asks, nodes with what is left on them.

Stands apart because filters, scores and queue read nothing else. The shell feeds `Cluster` one change at a time, so
that a cycle never walks all pods to learn what is free; a property holds the increments equal to a fresh count.
Leaves out devices, and of volumes everything but who reaches and who uses them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pilotage.api.core_v1 import (
    Container,
    Namespace,
    Node,
    PersistentVolume,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodSpec,
    Taint,
)
from pilotage.api.labels import Requirement, Selector, from_label_selector
from pilotage.api.quantity import milli, whole

CPU, MEMORY, PODS = "cpu", "memory", "pods"

UNSTATED_CPU = 100
UNSTATED_MEMORY = 200 * 1024 * 1024
"""What a pod that states no request counts for in scores (not in filters), so that such pods spread too; the numbers
are kube-scheduler's, 0.1 core and 200 MiB."""

Amounts = Mapping[str, int]  # resource name → millicores for cpu, the base unit for everything else


class PodKey(NamedTuple):
    """A pod's name; unique at any time, reused over time (hence `uid`)."""

    namespace: str
    name: str


class HostPort(NamedTuple):
    """A port a pod takes on the node's own addresses."""

    protocol: str
    ip: str  # "0.0.0.0" takes it on every address
    port: int

    def conflicts(self, other: "HostPort") -> bool:
        same_ip = self.ip == other.ip or "0.0.0.0" in (self.ip, other.ip)  # noqa: S104 - compared, never bound
        return same_ip and (self.protocol, self.port) == (other.protocol, other.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityTerm:
    """One (anti-)affinity term with its namespaces and label keys filled in from the pod that states it."""

    topology_key: str
    selector: Selector | None  # None: no pod
    namespaces: frozenset[str]
    namespace_selector: Selector | None  # None: only `namespaces`

    def selects(self, pod: "PodInfo", namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether `pod` is one the term speaks about; `namespaces` gives the labels of each namespace."""
        if self.selector is None:
            return False
        if pod.key.namespace not in self.namespaces and not (
            self.namespace_selector is not None
            and self.namespace_selector.matches(namespaces.get(pod.key.namespace, {}))
        ):
            return False
        return self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInfo:
    """A pod as scheduling sees it; immutable, made once a version of the pod."""

    key: PodKey
    uid: str
    labels: Mapping[str, str]
    spec: PodSpec
    priority: int
    is_deleting: bool
    requests: Amounts
    host_ports: tuple[HostPort, ...]
    affinity: tuple[AffinityTerm, ...]
    anti_affinity: tuple[AffinityTerm, ...]
    preferred_affinity: tuple[tuple[int, AffinityTerm], ...]  # weight, term
    preferred_anti_affinity: tuple[tuple[int, AffinityTerm], ...]
    started_at: str = ""  # RFC 3339, when its node accepted it; empty: not yet
    owner_selector: Selector | None = None  # what the pod spreads by when it states no constraint; None: by nothing

    @classmethod
    def of(cls, pod: Pod, *, owner_selector: Selector | None = None) -> "PodInfo":
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        affinity = pod.spec.affinity
        positive, negative = affinity.pod_affinity or PodAffinity(), affinity.pod_anti_affinity or PodAffinity()
        return cls(
            key=PodKey(namespace, pod.metadata.name),
            uid=pod.metadata.uid,
            labels=labels,
            spec=pod.spec,
            priority=pod.spec.priority,
            is_deleting=pod.metadata.is_deleting,
            requests=reserved(pod),
            host_ports=tuple(_host_ports(pod.spec)),
            affinity=_terms(positive.required_during_scheduling_ignored_during_execution, namespace, labels),
            anti_affinity=_terms(negative.required_during_scheduling_ignored_during_execution, namespace, labels),
            preferred_affinity=_weighted(positive, namespace, labels),
            preferred_anti_affinity=_weighted(negative, namespace, labels),
            started_at=pod.status.start_time,
            owner_selector=owner_selector,
        )

    def scheduling_inputs(self) -> tuple[object, ...]:
        """What a change of the pod itself must alter for another attempt to be worth it."""
        return (self.labels, self.spec)

    @property
    def scored_cpu(self) -> int:
        return self.requests.get(CPU) or UNSTATED_CPU

    @property
    def scored_memory(self) -> int:
        return self.requests.get(MEMORY) or UNSTATED_MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimInfo:
    """A volume claim as scheduling sees it."""

    volume: str = ""  # empty: not bound
    is_exclusive: bool = False  # ReadWriteOncePod: one pod of the whole cluster may use it


@dataclass(slots=True)
class NodeInfo:
    """A node, the pods on it (bound and assumed) and their sums."""

    node: Node
    allocatable: Amounts = field(default_factory=dict)
    pods: dict[PodKey, PodInfo] = field(default_factory=dict)
    requested: dict[str, int] = field(default_factory=dict)
    scored_cpu: int = 0
    scored_memory: int = 0
    host_ports: dict[PodKey, tuple[HostPort, ...]] = field(default_factory=dict)  # only pods that take any

    @property
    def name(self) -> str:
        return self.node.metadata.name

    @property
    def labels(self) -> Mapping[str, str]:
        return self.node.metadata.labels

    @property
    def taints(self) -> tuple[Taint, ...]:
        return self.node.spec.taints

    def add(self, pod: PodInfo) -> None:
        self.remove(pod.key)
        self.pods[pod.key] = pod
        for resource, amount in pod.requests.items():
            self.requested[resource] = self.requested.get(resource, 0) + amount
        self.scored_cpu += pod.scored_cpu
        self.scored_memory += pod.scored_memory
        if pod.host_ports:
            self.host_ports[pod.key] = pod.host_ports

    def remove(self, key: PodKey) -> None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return
        for resource, amount in pod.requests.items():
            self.requested[resource] -= amount
            if not self.requested[resource]:
                del self.requested[resource]
        self.scored_cpu -= pod.scored_cpu
        self.scored_memory -= pod.scored_memory
        self.host_ports.pop(key, None)


@dataclass(slots=True)
class Cluster:
    """Every node with its pods, kept current by increments; the snapshot a cycle decides on.

    A pod may be known before its node (watches are not ordered between kinds): it then waits in `homeless`.
    """

    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)  # name → labels
    locations: dict[PodKey, str] = field(default_factory=dict)  # pod → node name
    homeless: dict[str, dict[PodKey, PodInfo]] = field(default_factory=dict)  # node name → pods
    with_affinity: dict[PodKey, PodInfo] = field(default_factory=dict)  # bound pods that state any pod (anti-)affinity
    claims: dict[tuple[str, str], ClaimInfo] = field(default_factory=dict)  # by namespace and name
    volumes: dict[str, PersistentVolume] = field(default_factory=dict)  # by name
    image_holders: dict[str, int] = field(default_factory=dict)  # image name → nodes that have it
    nominations: dict[PodKey, str] = field(default_factory=dict)  # pod → node that was promised to it
    # (namespace, label key, value) → placed pods that carry it; with an empty key all of the namespace.
    _labelled: dict[tuple[str, str, str], dict[PodKey, PodInfo]] = field(default_factory=dict)
    _guests: dict[str, dict[PodKey, PodInfo]] = field(default_factory=dict)  # node → pods it was promised to

    def set_node(self, node: Node) -> None:
        name = node.metadata.name
        amounts = {resource: amount(resource, text) for resource, text in node.status.allocatable.items()}
        info = self.nodes.get(name)
        if info is None:
            info = self.nodes[name] = NodeInfo(node=node, allocatable=amounts)
            self._count_images(node, 1)
            for pod in self.homeless.pop(name, {}).values():
                info.add(pod)
        else:
            self._count_images(info.node, -1)
            self._count_images(node, 1)
            info.node, info.allocatable = node, amounts

    def remove_node(self, name: str) -> None:
        info = self.nodes.pop(name, None)
        if info is None:
            return
        self._count_images(info.node, -1)
        if info.pods:
            self.homeless[name] = dict(info.pods)

    def _count_images(self, node: Node, by: int) -> None:
        for name in {name for image in node.status.images for name in image.names}:
            count = self.image_holders.get(name, 0) + by
            if count:
                self.image_holders[name] = count
            else:
                del self.image_holders[name]

    def set_namespace(self, namespace: Namespace) -> None:
        self.namespaces[namespace.metadata.name] = namespace.metadata.labels

    def place(self, pod: PodInfo, node_name: str) -> None:
        """`pod` is (or is assumed to be) on `node_name`; repeating it, or moving a pod, is fine."""
        self.displace(pod.key)
        self.locations[pod.key] = node_name
        for label in _labels_of(pod):
            self._labelled.setdefault(label, {})[pod.key] = pod
        if pod.affinity or pod.anti_affinity or pod.preferred_affinity or pod.preferred_anti_affinity:
            self.with_affinity[pod.key] = pod
        info = self.nodes.get(node_name)
        if info is None:
            self.homeless.setdefault(node_name, {})[pod.key] = pod
        else:
            info.add(pod)

    def displace(self, key: PodKey) -> bool:
        """The pod is gone or terminal; True if it was on a node."""
        node_name = self.locations.pop(key, None)
        if node_name is None:
            return False
        self.with_affinity.pop(key, None)
        info = self.nodes.get(node_name)
        if info is not None:
            pod = info.pods[key]
            info.remove(key)
        else:
            pod = self.homeless[node_name].pop(key)
            if not self.homeless[node_name]:
                del self.homeless[node_name]
        for label in _labels_of(pod):
            del self._labelled[label][key]
            if not self._labelled[label]:
                del self._labelled[label]
        return True

    def labelled(self, namespace: str, selector: Selector) -> Iterator[PodInfo]:
        """The placed pods of a namespace that `selector` selects; costs as many as carry its rarest label."""
        found: Sequence[Mapping[PodKey, PodInfo]] = [self._labelled.get((namespace, "", ""), {})]
        for item in selector.requirements:
            if item.operator == "in":
                sets = [self._labelled.get((namespace, item.key, value), {}) for value in item.values]
                if sum(map(len, sets)) < sum(map(len, found)):
                    found = sets
        for pods in found:
            for pod in pods.values():
                if selector.matches(pod.labels):
                    yield pod

    def nominate(self, pod: PodInfo, node_name: str) -> None:
        """Promise a node to a pod that waits for others to leave it; an empty name takes the promise back."""
        before = self.nominations.pop(pod.key, None)
        if before is not None:
            self._guests[before].pop(pod.key, None)
            if not self._guests[before]:
                del self._guests[before]
        if node_name:
            self.nominations[pod.key] = node_name
            self._guests.setdefault(node_name, {})[pod.key] = pod

    def withdraw(self, key: PodKey) -> bool:
        """The pod is bound or gone and needs no promise any more; True if it had one."""
        before = self.nominations.get(key)
        if before is None:
            return False
        self.nominate(self._guests[before][key], "")
        return True

    def nominated_to(self, node_name: str, *, at_least: int | None = None, but: PodKey) -> tuple[PodInfo, ...]:
        """Pods that were promised the node, of no less priority than `at_least`, without the pod `but`."""
        guests = self._guests.get(node_name)
        if not guests:
            return ()
        return tuple(
            guest
            for key, guest in guests.items()
            if key != but and key not in self.locations and (at_least is None or guest.priority >= at_least)
        )

    def node_of(self, key: PodKey) -> NodeInfo | None:
        return self.nodes.get(self.locations.get(key, ""))


def _labels_of(pod: PodInfo) -> Iterator[tuple[str, str, str]]:
    yield pod.key.namespace, "", ""
    for key, value in pod.labels.items():
        yield pod.key.namespace, key, value


def amount(resource: str, text: str) -> int:
    """A quantity in the unit of `Amounts`, rounded up as the API rounds."""
    return milli(text) if resource == CPU else whole(text)


def pod_requests(spec: PodSpec) -> dict[str, int]:
    """What the pod reserves on its node: KEP-753 (sidecars), KEP-2837 (pod-level resources), plus overhead.

    The containers run together with all sidecars; an ordinary init container runs with the sidecars started before it;
    the pod reserves the greater of the two, resource by resource.
    """
    running = _total(_requests(container) for container in spec.containers)
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers:
        if container.restart_policy == "Always":
            sidecars = _total((sidecars, _requests(container)))
            moment = sidecars
        else:
            moment = _total((sidecars, _requests(container)))
        peak = {name: max(peak.get(name, 0), moment.get(name, 0)) for name in peak.keys() | moment.keys()}
    together = _total((running, sidecars))
    result = {name: max(together.get(name, 0), peak.get(name, 0)) for name in together.keys() | peak.keys()}
    result.update({name: amount(name, text) for name, text in spec.resources.requests.items()})
    overhead = {name: amount(name, text) for name, text in spec.overhead.items()}
    return {name: value for name, value in _total((result, overhead)).items() if value}


def reserved(pod: Pod) -> dict[str, int]:
    """What the pod takes of its node: what it asks for, what it was granted or what it is still held to (KEP-1287).

    The greatest of the three while a resize is on its way; what the node can never give it does not count.
    """
    pending = pod.status.condition("PodResizePending")
    held = pod.status.resources.requests if pod.status.resources is not None else {}
    wanted, granted, in_force = (pod_requests(pod.spec), *map(_resizable, (pod.status.allocated_resources, held)))
    if pending is not None and pending.reason == "Infeasible":
        wanted |= granted
    return {name: max(one.get(name, 0) for one in (wanted, granted, in_force)) for name in wanted | granted | in_force}


def _resizable(stated: Mapping[str, str]) -> dict[str, int]:
    return {name: amount(name, text) for name, text in stated.items() if name in (CPU, MEMORY)}


def _requests(container: Container) -> Amounts:
    stated = container.resources.limits | container.resources.requests  # a limit alone is also the request
    return {name: amount(name, text) for name, text in stated.items()}


def _total(parts: Iterable[Amounts]) -> dict[str, int]:
    result: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            result[name] = result.get(name, 0) + value
    return result


def _host_ports(spec: PodSpec) -> Iterable[HostPort]:
    sidecars = (container for container in spec.init_containers if container.restart_policy == "Always")
    for container in (*spec.containers, *sidecars):
        for port in container.ports:
            number = port.host_port or (port.container_port if spec.host_network else 0)
            if number:
                yield HostPort(port.protocol, port.host_ip or "0.0.0.0", number)  # noqa: S104 - compared, never bound


def _terms(terms: tuple[PodAffinityTerm, ...], namespace: str, labels: Mapping[str, str]) -> tuple[AffinityTerm, ...]:
    return tuple(_term(term, namespace, labels) for term in terms)


def _weighted(affinity: PodAffinity, namespace: str, labels: Mapping[str, str]) -> tuple[tuple[int, AffinityTerm], ...]:
    preferred = affinity.preferred_during_scheduling_ignored_during_execution
    return tuple((item.weight, _term(item.pod_affinity_term, namespace, labels)) for item in preferred)


def _term(term: PodAffinityTerm, namespace: str, labels: Mapping[str, str]) -> AffinityTerm:
    namespaces = frozenset(term.namespaces)
    if not namespaces and term.namespace_selector is None:
        namespaces = frozenset({namespace})  # neither stated: the pod's own
    selector = from_label_selector(term.label_selector)
    if selector is not None:
        selector = with_label_keys(selector, labels, term.match_label_keys, "in")
        selector = with_label_keys(selector, labels, term.mismatch_label_keys, "notin")
    return AffinityTerm(
        topology_key=term.topology_key,
        selector=selector,
        namespaces=namespaces,
        namespace_selector=from_label_selector(term.namespace_selector),
    )


def with_label_keys(selector: Selector, labels: Mapping[str, str], keys: tuple[str, ...], operator: str) -> Selector:
    """`selector` narrowed by the pod's own values of `keys` (KEP-3243, KEP-3633); keys the pod lacks are ignored."""
    extra = tuple(Requirement(key, operator, frozenset((labels[key],))) for key in keys if key in labels)
    return Selector(selector.requirements + extra) if extra else selector
