"""What one Service contributes to a plan: elements, chains, and what must be forgotten when it changes.

Stands apart from `plan`, which adds contributions up and takes differences: here each service port is turned into keys
and values of the layout's maps. Fed with the service ports of one Service and a view of who owns which address.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import gcd
from typing import TypeAlias

from pilotage.nft.core.expressions import DROP, Verdict, goto
from pilotage.nft.core.objects import Chain, ElementValue, Set
from pilotage.nft.core.types import PORT, PROTOCOL, encode_address
from pilotage.proxy.core.layout import (
    LOCAL_SLOTS,
    NODE_PORT_CLASS,
    SLOTS_MAX,
    TableSets,
    first_slot,
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

REFUSE = goto("refuse")
_PORT_SUFFIX = b"\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """What one Service contributes. Elements are flat triples (set, key, value): 100,000 of them must stay small."""

    owned: tuple[SetId | bytes | ElementValue, ...] = ()  # keys no other Service has
    shared: tuple[tuple[SetId, bytes, ElementValue], ...] = ()  # the same in every Service that has them
    chains: frozenset[ChainId] = frozenset()
    udp: Mapping[Frontend, frozenset[Target]] = field(default_factory=dict)  # for flows that must be forgotten
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
    if not number.isdigit():
        return None
    if kind == "remember":
        return (family, kind, int(number))
    variants = {"spread": 0, "spread-local": LOCAL_SLOTS, "node-port": NODE_PORT_CLASS}
    variants["node-port-local"] = NODE_PORT_CLASS | LOCAL_SLOTS
    if kind not in variants or not 0 < int(number) <= SLOTS_MAX:
        return None
    return (family, "spread", variants[kind] | int(number))


class Builder:
    """Collects one Service's fragment."""

    def __init__(self, service: str, node: NodeView, owners: Mapping[Frontend, str], problems: list[Problem]) -> None:
        self.service, self.node, self.owners, self.problems = service, node, owners, problems
        self.owned: list[SetId | bytes | ElementValue] = []
        self.shared: set[tuple[SetId, bytes, ElementValue]] = set()
        self.chains: set[ChainId] = set()
        self.udp: dict[Frontend, frozenset[Target]] = {}
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
            _, packed, suffix = _frontend(port, address)
            if not port.external_local:
                self._own(port.family, own.masqueraded.name, packed + suffix, None)
            if port.source_ranges and address in port.load_balancer_ips:
                self._own(port.family, own.firewalled.name, packed + suffix, None)
                for text in port.source_ranges:
                    key = _range_key(packed + suffix, text, own)
                    self._own(port.family, own.allowed_sources.name, key, None)
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
        self._side(port.family, key, own.services.name, own.backends.name, own.unavailable.name, 0, inside, choice)
        if outside != inside:
            self._side(
                port.family,
                key,
                own.external_services.name,
                own.backends.name,
                own.unavailable_external.name,
                LOCAL_SLOTS,
                outside,
                choice,
            )
        self._remember(port, frontend, own.sticky, inside, outside)
        return True

    def _node_port(
        self, port: ServicePort, own: TableSets, inside: tuple[Target, ...], outside: tuple[Target, ...], choice: Choice
    ) -> None:
        frontend = _node_port_frontend(port)
        if not self._owns(frontend, f"node port {port.node_port}/{port.protocol}"):
            return
        key = frontend[2]
        backends, kind = own.node_port_backends.name, NODE_PORT_CLASS
        self._side(
            port.family, key, own.node_ports.name, backends, own.unavailable_node_ports.name, kind, inside, choice
        )
        if outside != inside:
            self._side(
                port.family,
                key,
                own.external_node_ports.name,
                backends,
                own.unavailable_external_node_ports.name,
                kind | LOCAL_SLOTS,
                outside,
                choice,
            )
        if not port.external_local:
            self._own(port.family, own.masqueraded_node_ports.name, key, None)
        self._remember(port, frontend, own.sticky_node_ports, inside, outside)

    def _side(
        self,
        family: str,
        key: bytes,
        classes: str,
        backends: str,
        unavailable: str,
        kind: int,
        targets: tuple[Target, ...],
        choice: Choice,
    ) -> None:
        """One kind of client of one frontend: how many endpoints, and which; or that there is none."""
        if not targets:
            # KEP-2086: endpoints exist, but policy Local forbids them here: drop, so that a balancer tries another
            # node. No endpoint at all: refuse, so that the client knows at once.
            self._own(family, unavailable, key, DROP if choice.exists else REFUSE)
            return
        class_id = kind | len(targets)
        packed_class = _little(class_id)
        self._own(family, classes, key, packed_class)
        place = _set_id(family, backends)
        owned = self.owned
        for slot, target in enumerate(targets, first_slot(class_id)):
            owned += (place, key + _little(slot), target)
        self.chains.add((family, "spread", class_id))
        self._share(family, "spread", packed_class, _goto(family, class_id))

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
def _goto(family: str, class_id: int) -> Verdict:
    return goto(spread_chain(family, class_id).name)


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


def _range_key(frontend: bytes, network: str, own: TableSets) -> bytes:
    address, _, length = network.partition("/")
    size = own.hairpin.key.parts[0].size
    low = encode_address(address, size)
    host_bits = size * 8 - int(length)
    high = (int.from_bytes(low, "big") | ((1 << host_bits) - 1)).to_bytes(size, "big")
    return frontend + low + frontend + high
