"""Service ports → the elements and chains the tables must hold, and how to get there from where they are.

Stands apart as the proxy's one decision: `Planner` keeps what every Service contributes and turns the change of one
Service into the change of a few elements; `Planner.plan()` is the whole, which equals planning everything afresh (held
by a property). Fed by the proxier; knows no socket and no text. Memory: about 140 bytes an endpoint.

Two Services may claim the same address and port (an external IP, a hand-made cluster IP). The older one has it, the
other is told so; when the older goes, `Planner.update` names the other to be planned again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from pilotage.nft.core.expressions import DROP, Verdict, goto
from pilotage.nft.core.objects import Chain, ElementValue, Set
from pilotage.nft.core.types import PORT, PROTOCOL, encode_address
from pilotage.proxy.core.layout import (
    HASH_CLASS,
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the tables must hold beside the static chains and sets."""

    elements: Mapping[SetId, Mapping[bytes, ElementValue]]
    chains: frozenset[ChainId]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The way from one plan to another, in this order: chains, then deletions and additions at once, then old chains.

    New chains without traffic harm nobody and old chains nobody leads to neither, so only the middle must be atomic.
    """

    new_chains: frozenset[ChainId] = frozenset()
    deleted: Mapping[SetId, Mapping[bytes, ElementValue]] = field(default_factory=dict)
    added: Mapping[SetId, Mapping[bytes, ElementValue]] = field(default_factory=dict)
    old_chains: frozenset[ChainId] = frozenset()
    flows_changed: bool = False  # tracked UDP flows may lead to endpoints that are gone
    frontends_gone: frozenset[Frontend] = frozenset()  # UDP addresses nobody answers for any more
    clients_changed: frozenset[str] = frozenset()  # families whose remembered clients may lead nowhere

    def __bool__(self) -> bool:
        return bool(self.new_chains or self.deleted or self.added or self.old_chains)

    @property
    def size(self) -> int:
        """Element changes."""
        return sum(map(len, self.deleted.values())) + sum(map(len, self.added.values()))


def difference(old: Plan, new: Plan) -> Delta:
    """What turns `old` into `new`. Costs the size of both: for start, resynchronisation and repair."""
    deleted: dict[SetId, dict[bytes, ElementValue]] = {}
    added: dict[SetId, dict[bytes, ElementValue]] = {}
    for set_id in sorted(old.elements.keys() | new.elements.keys()):
        before, after = old.elements.get(set_id, {}), new.elements.get(set_id, {})
        gone = {key: value for key, value in before.items() if key not in after or after[key] != value}
        come = {key: value for key, value in after.items() if key not in before or before[key] != value}
        if gone:
            deleted[set_id] = gone
        if come:
            added[set_id] = come
    return Delta(new_chains=new.chains - old.chains, deleted=deleted, added=added, old_chains=old.chains - new.chains)


@cache
def chain_of(chain_id: ChainId) -> Chain:
    """The chain behind an id."""
    family, kind, number = chain_id
    return spread_chain(family, number) if kind == "spread" else remember_chain(family, number)


class Planner:
    """The plan of one node, changed one Service at a time."""

    def __init__(self, node: NodeView) -> None:
        self.node = node
        self._fragments: dict[str, Fragment] = {}
        self._shared: Counter[tuple[SetId, bytes, ElementValue]] = Counter()
        self._chains: Counter[ChainId] = Counter()
        self._owners: dict[Frontend, str] = {}
        self._claims: dict[str, frozenset[Frontend]] = {}  # also those that another Service owns
        self._contested: dict[Frontend, set[str]] = {}
        self._ages: dict[str, tuple[str, str]] = {}
        self.udp: dict[Frontend, frozenset[Target]] = {}
        self.sticky: dict[Frontend, frozenset[Target]] = {}
        self.health: dict[str, tuple[int, int]] = {}  # Service → health check node port, endpoints here
        self._deleted: dict[tuple[SetId, bytes], ElementValue] = {}
        self._added: dict[tuple[SetId, bytes], ElementValue] = {}
        self._old_chains: set[ChainId] = set()
        self._new_chains: set[ChainId] = set()
        self._frontends_gone: set[Frontend] = set()
        self._flows_changed = False
        self._clients_changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._fragments)

    @property
    def services(self) -> Iterable[str]:
        return self._fragments.keys()

    def update(
        self, service: str, ports: tuple[ServicePort, ...], *, age: str = "", problems: list[Problem] | None = None
    ) -> frozenset[str]:
        """Plan `service` anew with `ports` (none: it is gone); the order of updates does not matter for the result.

        `age` sorts by who was first (a creation timestamp). Returns other Services that must be planned again before
        `take`, because an address they share with this one changed hands.
        """
        found = problems if problems is not None else []
        again = self._claim(service, frozenset(f for port in ports for f in _frontends(port)), age)
        fragment = self._fragment(service, ports, found)
        self._replace(service, fragment)
        return again

    def take(self) -> Delta:
        """What changed since the last call."""
        deleted, added = _by_set(self._deleted), _by_set(self._added)
        delta = Delta(
            new_chains=frozenset(self._new_chains),
            deleted=deleted,
            added=added,
            old_chains=frozenset(self._old_chains),
            flows_changed=self._flows_changed,
            frontends_gone=frozenset(self._frontends_gone),
            clients_changed=frozenset(self._clients_changed),
        )
        self._deleted, self._added, self._new_chains, self._old_chains = {}, {}, set(), set()
        self._frontends_gone, self._flows_changed, self._clients_changed = set(), False, set()
        return delta

    def plan(self) -> Plan:
        """Everything that must be there now."""
        elements: dict[SetId, dict[bytes, ElementValue]] = {}
        for fragment in self._fragments.values():
            for set_id, key, value in fragment.elements():
                elements.setdefault(set_id, {})[key] = value
        for set_id, key, value in self._shared:
            elements.setdefault(set_id, {})[key] = value
        return Plan(elements=elements, chains=frozenset(self._chains))

    # ── who has which address ───────────────────────────────────────────────────────────────────────────────────

    def _claim(self, service: str, wanted: frozenset[Frontend], age: str) -> frozenset[str]:
        again: set[str] = set()
        for frontend in self._claims.get(service, frozenset()) - wanted:
            rivals = self._contested.get(frontend)
            if rivals is not None:
                rivals.discard(service)
            if self._owners.get(frontend) == service:
                del self._owners[frontend]
                if rivals:
                    again.add(min(rivals, key=self._ages.__getitem__))
            if rivals is not None and len(rivals) < 2:
                del self._contested[frontend]
        if wanted:
            self._claims[service], self._ages[service] = wanted, (age, service)
        else:
            self._claims.pop(service, None)
        for frontend in wanted:
            owner = self._owners.setdefault(frontend, service)
            if owner != service:
                self._contested.setdefault(frontend, {owner}).add(service)
                if self._ages[service] < self._ages[owner]:
                    self._owners[frontend] = service
                    again.add(owner)
        if not wanted:
            self._ages.pop(service, None)
        return frozenset(again)

    # ── what a Service contributes ──────────────────────────────────────────────────────────────────────────────

    def _fragment(self, service: str, ports: tuple[ServicePort, ...], problems: list[Problem]) -> Fragment:
        if not ports:
            return Fragment()
        builder = _Builder(service, self.node, self._owners, problems)
        for port in ports:
            builder.add(port)
        return builder.fragment()

    def _replace(self, service: str, new: Fragment) -> None:
        old = self._fragments.get(service, _NOTHING)
        before = {(set_id, key): value for set_id, key, value in old.elements()}
        after = {(set_id, key): value for set_id, key, value in new.elements()}
        for place, value in before.items():
            if place not in after or after[place] != value:
                self._drop(place, value)
        for place, value in after.items():
            if place not in before or before[place] != value:
                self._put(place, value)
        for element in new.shared:
            self._shared[element] += 1
            if self._shared[element] == 1:
                self._put(element[:2], element[2])
        for element in old.shared:
            self._shared[element] -= 1
            if not self._shared[element]:
                del self._shared[element]
                self._drop(element[:2], element[2])
        self._count_chains(old.chains, new.chains)
        self._replace_targets(service, old, new)
        self.health.pop(service, None)
        if new.health is not None:
            self.health[service] = new.health
        if new.owned or new.shared:
            self._fragments[service] = new
        else:
            self._fragments.pop(service, None)

    def _replace_targets(self, service: str, old: Fragment, new: Fragment) -> None:
        for frontend in old.udp.keys() | new.udp.keys():
            after = new.udp.get(frontend, frozenset())
            before = old.udp.get(frontend, frozenset())
            # An endpoint went, or the first one came: before it, packets passed untranslated.
            if before - after or (after and not before):
                self._flows_changed = True
            if frontend not in new.udp:
                self._frontends_gone.add(frontend)
        for frontend, targets in old.sticky.items():
            if targets - new.sticky.get(frontend, frozenset()):
                self._clients_changed.add(frontend[0])
        for current, gone, come in ((self.udp, old.udp, new.udp), (self.sticky, old.sticky, new.sticky)):
            for frontend in gone.keys() - come.keys():
                if self._owners.get(frontend, service) == service:  # else the new owner's entry stands there already
                    current.pop(frontend, None)
            current.update(come)
        self._frontends_gone -= new.udp.keys()

    def _put(self, place: tuple[SetId, bytes], value: ElementValue) -> None:
        if place in self._deleted and self._deleted[place] == value:
            del self._deleted[place]
        else:
            self._added[place] = value

    def _drop(self, place: tuple[SetId, bytes], value: ElementValue) -> None:
        if place in self._added and self._added[place] == value:
            del self._added[place]
        else:
            self._deleted.setdefault(place, value)

    def _count_chains(self, old: frozenset[ChainId], new: frozenset[ChainId]) -> None:
        for chain in new - old:
            self._chains[chain] += 1
            if self._chains[chain] == 1:
                if chain in self._old_chains:
                    self._old_chains.remove(chain)
                else:
                    self._new_chains.add(chain)
        for chain in old - new:
            self._chains[chain] -= 1
            if not self._chains[chain]:
                del self._chains[chain]
                if chain in self._new_chains:
                    self._new_chains.remove(chain)
                else:
                    self._old_chains.add(chain)


_NOTHING = Fragment()


class _Builder:
    """Collects one Service's fragment."""

    def __init__(self, service: str, node: NodeView, owners: Mapping[Frontend, str], problems: list[Problem]) -> None:
        self.service, self.node, self.owners, self.problems = service, node, owners, problems
        self.owned: list[SetId | bytes | ElementValue] = []
        self.shared: set[tuple[SetId, bytes, ElementValue]] = set()
        self.chains: set[ChainId] = set()
        self.udp: dict[Frontend, frozenset[Target]] = {}
        self.sticky: dict[Frontend, frozenset[Target]] = {}
        self.health: tuple[int, int] | None = None

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
            packed = encode_address(endpoint.address, own.hairpin.key.parts[0].size)
            self._share(port.family, own.hairpin.name, packed + packed, None)
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
        if len(endpoints) > SLOTS_MAX:
            message = f"port {port.name or port.port}: {len(endpoints)} endpoints, {SLOTS_MAX} are used"
            self.problems.append(Problem(service=self.service, reason="TooManyEndpoints", message=message))
        size = 4 if port.family == "ip" else 16
        return tuple(
            encode_address(endpoint.address, size) + endpoint.port.to_bytes(2, "big") + _PORT_SUFFIX
            for endpoint in endpoints[:SLOTS_MAX]
        )

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
        kind = self._kind(port)
        self._side(port.family, key, own.services.name, own.backends.name, own.unavailable.name, kind, inside, choice)
        if outside != inside:
            self._side(
                port.family,
                key,
                own.external_services.name,
                own.backends.name,
                own.unavailable_external.name,
                kind | LOCAL_SLOTS,
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
        backends, kind = own.node_port_backends.name, NODE_PORT_CLASS | self._kind(port)
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
        sticky: Set | None,
        inside: tuple[Target, ...],
        outside: tuple[Target, ...],
    ) -> None:
        targets = frozenset(inside) | frozenset(outside)
        if port.protocol == "udp":
            self.udp[frontend] = targets
        if port.affinity_s and targets and sticky is not None:
            chain: ChainId = (port.family, "remember", port.affinity_s)
            self.chains.add(chain)
            self._own(port.family, sticky.name, frontend[1] + frontend[2], goto(chain_of(chain).name))
            self.sticky[frontend] = targets

    @staticmethod
    def _kind(port: ServicePort) -> int:
        return HASH_CLASS if port.affinity_s and sets(port.family).affinity is None else 0

    def _owns(self, frontend: Frontend, text: str) -> bool:
        owner = self.owners.get(frontend)
        if owner == self.service:
            return True
        message = f"{text} already belongs to Service {owner}"
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


def _frontends(port: ServicePort) -> Iterable[Frontend]:
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


def _by_set(changes: Mapping[tuple[SetId, bytes], ElementValue]) -> dict[SetId, dict[bytes, ElementValue]]:
    result: dict[SetId, dict[bytes, ElementValue]] = {}
    for (set_id, key), value in changes.items():
        result.setdefault(set_id, {})[key] = value
    return result
