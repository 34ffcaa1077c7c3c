"""What one Service contributes to a plan: elements, chains, and what must be forgotten when it changes.

Stands apart from `plan`, which adds contributions up and takes differences: here each service port is turned into keys
and values of the layout's maps. Fed with the service ports of one Service and a view of who owns which address.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import gcd
from typing import TypeAlias

from pilotage.nft.core.expressions import Verdict, goto
from pilotage.nft.core.objects import Chain, ElementValue, Set
from pilotage.nft.core.types import PORT, PROTOCOL, encode_address
from pilotage.proxy.core.layout import (
    DROPPED_CLASS,
    GUARDED_CLASS,
    LOCAL_SLOTS,
    NODE_PORT_CLASS,
    REFUSED_CLASS,
    SLOTS_MAX,
    SPLIT_CLASS,
    STICKY_CLASS,
    TableSets,
    class_of,
    first_slot,
    refusal,
    remember_chain,
    sets,
    spread_chain,
)
from pilotage.proxy.core.model import Endpoint, Problem, ServicePort
from pilotage.proxy.core.topology import Choice, NodeView, choose

SetId: TypeAlias = tuple[str, str]  # family, set name
ChainId: TypeAlias = tuple[str, str, int]  # family, "spread" or "remember", class or timeout
# What clients address: family, packed address ("" for a node port), packed protocol and port.
Frontend: TypeAlias = tuple[str, bytes, bytes]
Target: TypeAlias = bytes  # packed endpoint address and port
Sources: TypeAlias = tuple[tuple[bytes, bytes], ...]  # ranges of packed addresses, both ends included

_PORT_SUFFIX = b"\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """What one Service contributes. Elements are flat triples (set, key, value): 100,000 of them must stay small."""

    owned: tuple[SetId | bytes | ElementValue, ...] = ()  # keys no other Service has
    shared: tuple[tuple[SetId, bytes, ElementValue], ...] = ()  # the same in every Service that has them
    chains: frozenset[ChainId] = frozenset()
    udp: Mapping[Frontend, frozenset[Target]] = field(default_factory=dict)  # for flows that must be forgotten
    guarded: Mapping[Frontend, Sources] = field(default_factory=dict)  # of `udp`, those that not everybody may use
    sticky: Mapping[Frontend, frozenset[Target]] = field(default_factory=dict)  # for clients that must move
    health: tuple[int, int] | None = None  # health check node port, endpoints on this node

    def elements(self) -> Iterable[tuple[SetId, bytes, ElementValue]]:
        flat = iter(self.owned)
        return zip(flat, flat, flat, strict=True)  # type: ignore[arg-type]  # triples, as declared


@cache
def chain_of(chain_id: ChainId) -> Chain:
    """The chain behind an id."""
    family, kind, number = chain_id
    return spread_chain(family, number) if kind == "spread" else remember_chain(family, number)


def chain_id(family: str, name: str) -> ChainId | None:
    """The id behind a chain's name; None for a name that no such chain has."""
    kind, _, number = name.rpartition("-")
    if kind == "remember" and number.isdigit():
        return (family, kind, int(number))
    class_id = class_of(name)
    return None if class_id is None else (family, "spread", class_id)


class Builder:
    """Collects one Service's fragment."""

    def __init__(self, service: str, node: NodeView, owners: Mapping[Frontend, str], problems: list[Problem]) -> None:
        self.service, self.node, self.owners, self.problems = service, node, owners, problems
        self.owned: list[SetId | bytes | ElementValue] = []
        self.shared: set[tuple[SetId, bytes, ElementValue]] = set()
        self.chains: set[ChainId] = set()
        self.udp: dict[Frontend, frozenset[Target]] = {}
        self.guarded: dict[Frontend, Sources] = {}
        self.sticky: dict[Frontend, frozenset[Target]] = {}
        self.health: tuple[int, int] | None = None
        self.seen: set[Frontend] = set()

    def fragment(self) -> Fragment:
        # Sorted, so that equal contributions are equal values whatever the order of sets in memory.
        return Fragment(
            owned=tuple(self.owned),
            shared=tuple(sorted(self.shared, key=lambda element: element[:2])),
            chains=frozenset(self.chains),
            udp=self.udp,
            guarded=self.guarded,
            sticky=self.sticky,
            health=self.health,
        )

    def add(self, port: ServicePort) -> None:
        own = sets(port.family)
        choice = choose(port, self.node)
        internal, cluster, external = (
            self._targets(port, endpoints) for endpoints in (choice.internal, choice.cluster, choice.external)
        )
        for endpoint in choice.local:
            self._share(port.family, own.hairpin.name, endpoint.packed + endpoint.packed, None)
        if port.health_check_node_port:
            self.health = (port.health_check_node_port, len(choice.local))
        self._address(port, own, port.cluster_ip, internal, internal, choice)
        packed_ip = encode_address(port.cluster_ip, own.cluster_ips.key.parts[0].size)
        self._share(port.family, own.cluster_ips.name, packed_ip, None)
        for address in port.external_ips + port.load_balancer_ips:
            if not self._address(port, own, address, cluster, external, choice):
                continue
            frontend = _frontend(port, address)
            _, packed, suffix = frontend
            told = own.unmasqueraded if port.external_local else own.masqueraded
            self._own(port.family, told.name, packed + suffix, None)
            if _is_guarded(port, address):
                sources = tuple(_range(text, len(packed)) for text in port.source_ranges)
                for low, high in sources:
                    key = packed + suffix + low + packed + suffix + high
                    self._own(port.family, own.allowed_sources.name, key, None)
                if port.protocol == "udp":
                    self.guarded[frontend] = sources
        if port.node_port:
            self._node_port(port, own, cluster, external, choice)

    def _targets(self, port: ServicePort, endpoints: tuple[Endpoint, ...]) -> tuple[Target, ...]:
        """A target a slot: an endpoint has as many as its weight says, none of them more than needed."""
        divisor = gcd(*(endpoint.weight for endpoint in endpoints))
        targets: list[Target] = []
        for endpoint in endpoints:
            target = endpoint.packed + endpoint.port.to_bytes(2, "big") + _PORT_SUFFIX
            targets += (target,) * (endpoint.weight // divisor)
        if len(targets) > SLOTS_MAX:
            what = f"{len(endpoints)} endpoints" if len(targets) == len(endpoints) else f"{len(targets)} shares"
            message = f"port {port.name or port.port}: {what}, {SLOTS_MAX} are used"
            self.problems.append(Problem(service=self.service, reason="TooManyEndpoints", message=message))
        return tuple(targets[:SLOTS_MAX])

    def _address(
        self,
        port: ServicePort,
        own: TableSets,
        address: str,
        inside: tuple[Target, ...],
        outside: tuple[Target, ...],
        choice: Choice,
    ) -> bool:
        """The elements that lead from one address; False if it belongs to another Service."""
        frontend = _frontend(port, address)
        if not self._owns(frontend, f"{address}:{port.port}/{port.protocol}"):
            return False
        _, packed, suffix = frontend
        key = packed + suffix
        backends, kind = own.backends, STICKY_CLASS if port.affinity_s else 0
        entry = (GUARDED_CLASS if _is_guarded(port, address) else 0) | (SPLIT_CLASS if outside != inside else 0)
        self._side(port.family, key, own.services, backends, kind | entry, inside, choice)
        if outside != inside:
            self._side(port.family, key, own.external_services, backends, kind | LOCAL_SLOTS, outside, choice)
        self._remember(port, frontend, own.sticky, inside, outside)
        return True

    def _node_port(
        self, port: ServicePort, own: TableSets, inside: tuple[Target, ...], outside: tuple[Target, ...], choice: Choice
    ) -> None:
        frontend = _node_port_frontend(port)
        if not self._owns(frontend, f"node port {port.node_port}/{port.protocol}"):
            return
        key = frontend[2]
        backends, kind = own.node_port_backends, NODE_PORT_CLASS | (STICKY_CLASS if port.affinity_s else 0)
        entry = SPLIT_CLASS if outside != inside else 0
        self._side(port.family, key, own.node_ports, backends, kind | entry, inside, choice)
        if outside != inside:
            self._side(port.family, key, own.external_node_ports, backends, kind | LOCAL_SLOTS, outside, choice)
        if not port.external_local:
            self._own(port.family, own.masqueraded_node_ports.name, key, None)
        self._remember(port, frontend, own.sticky_node_ports, inside, outside)

    def _side(
        self,
        family: str,
        key: bytes,
        classes: Set,
        backends: Set,
        kind: int,
        targets: tuple[Target, ...],
        choice: Choice,
    ) -> None:
        """One kind of client of one frontend: how many endpoints, and which; or that there is none."""
        if targets:
            class_id = kind | len(targets)
        else:
            entry = kind & (GUARDED_CLASS | SPLIT_CLASS)
            class_id = entry | (DROPPED_CLASS if choice.exists else REFUSED_CLASS)
        packed_class = _little(class_id)
        self._own(family, classes.name, key, packed_class)
        place = _set_id(family, backends.name)
        owned = self.owned
        for slot, target in enumerate(targets, first_slot(class_id)):
            owned += (place, key + _little(slot), target)
        own = sets(family)
        spread = own.external_spread if classes in (own.external_services, own.external_node_ports) else own.spread
        self._share(family, spread.name, packed_class, _verdict(family, class_id))
        if class_id not in (REFUSED_CLASS, DROPPED_CLASS):
            self.chains.add((family, "spread", class_id))

    def _remember(
        self,
        port: ServicePort,
        frontend: Frontend,
        sticky: Set,
        inside: tuple[Target, ...],
        outside: tuple[Target, ...],
    ) -> None:
        targets = frozenset(inside) | frozenset(outside)
        if port.protocol == "udp":
            self.udp[frontend] = targets
        if port.affinity_s and targets:
            chain: ChainId = (port.family, "remember", port.affinity_s)
            self.chains.add(chain)
            self._own(port.family, sticky.name, frontend[1] + frontend[2], goto(chain_of(chain).name))
            self.sticky[frontend] = targets

    def _owns(self, frontend: Frontend, text: str) -> bool:
        owner = self.owners.get(frontend)
        if owner == self.service and frontend not in self.seen:
            self.seen.add(frontend)
            return True
        message = f"{text} stands twice" if owner == self.service else f"{text} already belongs to Service {owner}"
        self.problems.append(Problem(service=self.service, reason="AddressInUse", message=message))
        return False

    def _own(self, family: str, name: str, key: bytes, value: ElementValue) -> None:
        self.owned += (_set_id(family, name), key, value)

    def _share(self, family: str, name: str, key: bytes, value: ElementValue) -> None:
        self.shared.add((_set_id(family, name), key, value))


@cache
def _set_id(family: str, name: str) -> SetId:
    return (family, name)


@cache
def _little(number: int) -> bytes:
    return number.to_bytes(4, "little")


@cache
def _verdict(family: str, class_id: int) -> Verdict:
    """What the class leads to: a chain, unless nothing is to be asked before the client is turned away."""
    if class_id in (REFUSED_CLASS, DROPPED_CLASS):
        verdict = refusal(class_id)
        assert verdict is not None
        return verdict
    return goto(spread_chain(family, class_id).name)


def _is_guarded(port: ServicePort, address: str) -> bool:
    """Whether only some sources may use this address: a balancer's, if the Service lists them."""
    return bool(port.source_ranges) and address in port.load_balancer_ips


def _suffix(port: ServicePort, number: int) -> bytes:
    return PROTOCOL.encode(port.protocol) + PORT.encode(number)


def _frontend(port: ServicePort, address: str) -> Frontend:
    return (port.family, encode_address(address, 4 if port.family == "ip" else 16), _suffix(port, port.port))


def _node_port_frontend(port: ServicePort) -> Frontend:
    return (port.family, b"", _suffix(port, port.node_port))


def frontends_of(port: ServicePort) -> Iterable[Frontend]:
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        yield _frontend(port, address)
    if port.node_port:
        yield _node_port_frontend(port)


def _range(network: str, size: int) -> tuple[bytes, bytes]:
    """First and last address of a CIDR."""
    address, _, length = network.partition("/")
    low = encode_address(address, size)
    host_bits = size * 8 - int(length)
    return low, (int.from_bytes(low, "big") | ((1 << host_bits) - 1)).to_bytes(size, "big")
