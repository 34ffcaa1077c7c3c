"""Service ports → the elements and chains the tables must hold, and how to get there from where they are.

Stands apart as the proxy's one decision: `Planner` keeps what every Service contributes and turns the change of one
Service into the change of a few elements; `Planner.plan()` is the whole, which equals planning everything afresh (held
by a property). Fed by the proxier; knows no socket and no text. Memory: about 140 bytes an endpoint.

Two Services may claim the same address and port (an external IP, a hand-made cluster IP, a node port). Whose cluster IP
or node port it is has it, whoever else writes it down as external; among equals the older one. The other is told so;
when the first goes, `Planner.update` names the other to be planned again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pilotage.nft.core.objects import ElementValue
from pilotage.nft.core.types import encode_address
from pilotage.proxy.core.fragment import Builder, ChainId, Fragment, Frontend, SetId, Sources, Target, frontends_of
from pilotage.proxy.core.model import Problem, ServicePort
from pilotage.proxy.core.topology import NodeView

V = TypeVar("V")


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
        if before == after:
            continue  # five times as fast as finding no difference below
        gone = {key: value for key, value in before.items() if key not in after or after[key] != value}
        come = {key: value for key, value in after.items() if key not in before or before[key] != value}
        if gone:
            deleted[set_id] = gone
        if come:
            added[set_id] = come
    return Delta(new_chains=new.chains - old.chains, deleted=deleted, added=added, old_chains=old.chains - new.chains)


class Planner:
    """The plan of one node, changed one Service at a time."""

    def __init__(self, node: NodeView, *, recording: bool = True) -> None:
        """Without `recording`, changes are not kept until the first `take`: for whoever begins with the whole plan."""
        self.node = node
        self._recording = recording
        self._fragments: dict[str, Fragment] = {}
        self._shared: Counter[tuple[SetId, bytes, ElementValue]] = Counter()
        self._sizes: Counter[SetId | bytes | ElementValue] = Counter()  # elements of `owned`, by set
        self._chains: Counter[ChainId] = Counter()
        self._owners: dict[Frontend, str] = {}
        self._claims: dict[str, Mapping[Frontend, int]] = {}  # with ranks; also those that another Service owns
        self._contested: dict[Frontend, set[str]] = {}
        self._ages: dict[str, tuple[str, str]] = {}
        self.udp: dict[Frontend, frozenset[Target]] = {}
        self.guarded: dict[Frontend, Sources] = {}
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
        again = self._claim(service, _claims(ports), age)
        for other in again:
            # It may have lost an address to us: its elements go first, so that no key ever has two holders. It is
            # planned again before `take`, so nobody sees it gone.
            self._replace(other, _NOTHING)
        self._replace(service, self._fragment(service, ports, found))
        return again

    def take(self) -> Delta:
        """What changed since the last call."""
        self._recording = True
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

    def elements_of(self, set_id: SetId) -> dict[bytes, ElementValue]:
        """The part of `plan` that is one set."""
        elements: dict[bytes, ElementValue] = {}
        if self._sizes[set_id]:
            for fragment in self._fragments.values():
                if set_id in fragment.owned:
                    elements.update((key, value) for one, key, value in fragment.elements() if one == set_id)
        elements.update((key, value) for one, key, value in self._shared if one == set_id)
        return elements

    # ── who has which address ───────────────────────────────────────────────────────────────────────────────────

    def _claim(self, service: str, wanted: Mapping[Frontend, int], age: str) -> frozenset[str]:
        again: set[str] = set()
        gone = self._claims.get(service, {}).keys() - wanted.keys()
        if wanted:
            self._claims[service], self._ages[service] = wanted, (age, service)
        else:
            self._claims.pop(service, None)
            self._ages.pop(service, None)
        for frontend in gone:
            rivals = self._contested.get(frontend)
            if rivals is not None:
                rivals.discard(service)
            if self._owners.get(frontend) == service:
                del self._owners[frontend]
                if rivals:
                    again.add(self._first(frontend, rivals))
            if rivals is not None and len(rivals) < 2:
                del self._contested[frontend]
        for frontend in wanted:
            owner = self._owners.setdefault(frontend, service)
            if owner != service:
                self._contested.setdefault(frontend, {owner}).add(service)
            rivals = self._contested.get(frontend)
            if rivals:
                first = self._first(frontend, rivals)
                if first != owner:
                    self._owners[frontend] = first
                    again |= {owner, first} - {service}
        return frozenset(again)

    def _first(self, frontend: Frontend, rivals: Iterable[str]) -> str:
        """Who of `rivals`, all of whom claim it, has `frontend`."""
        return min(rivals, key=lambda service: (self._claims[service][frontend], self._ages[service]))

    # ── what a Service contributes ──────────────────────────────────────────────────────────────────────────────

    def _fragment(self, service: str, ports: tuple[ServicePort, ...], problems: list[Problem]) -> Fragment:
        if not ports:
            return Fragment()
        builder = Builder(service, self.node, self._owners, problems)
        for port in ports:
            builder.add(port)
        return builder.fragment()

    def _replace(self, service: str, new: Fragment) -> None:
        old = self._fragments.get(service, _NOTHING)
        if not self._recording and old is _NOTHING:
            self._count(service, old, new)
            return
        before = {(set_id, key): value for set_id, key, value in old.elements()}
        after = {(set_id, key): value for set_id, key, value in new.elements()}
        for place, value in before.items():
            if place not in after or after[place] != value:
                self._drop(place, value)
        for place, value in after.items():
            if place not in before or before[place] != value:
                self._put(place, value)
        self._count(service, old, new)

    def _count(self, service: str, old: Fragment, new: Fragment) -> None:
        """Everything but the elements that are the Service's own."""
        for element in new.shared:
            self._shared[element] += 1
            if self._shared[element] == 1:
                self._put(element[:2], element[2])
        for element in old.shared:
            self._shared[element] -= 1
            if not self._shared[element]:
                del self._shared[element]
                self._drop(element[:2], element[2])
        self._sizes.update(new.owned[::3])
        self._sizes.subtract(old.owned[::3])
        self._count_chains(old.chains, new.chains)
        self._replace_targets(old, new)
        self.health.pop(service, None)
        if new.health is not None:
            self.health[service] = new.health
        if new.owned or new.shared:
            self._fragments[service] = new
        else:
            self._fragments.pop(service, None)

    def _replace_targets(self, old: Fragment, new: Fragment) -> None:
        for frontend in old.udp.keys() | new.udp.keys():
            after = new.udp.get(frontend, frozenset())
            before = old.udp.get(frontend, frozenset())
            # An endpoint went, or the first one came: before it, packets passed untranslated. Or others may enter.
            if before - after or (after and not before) or old.guarded.get(frontend) != new.guarded.get(frontend):
                self._flows_changed = True
            if frontend not in new.udp:
                self._frontends_gone.add(frontend)
        for frontend, targets in old.sticky.items():
            if targets - new.sticky.get(frontend, frozenset()):
                self._clients_changed.add(frontend[0])
        _follow(self.udp, old.udp, new.udp)
        _follow(self.guarded, old.guarded, new.guarded)
        _follow(self.sticky, old.sticky, new.sticky)
        self._frontends_gone -= new.udp.keys()

    def _put(self, place: tuple[SetId, bytes], value: ElementValue) -> None:
        if not self._recording:
            return
        if place in self._deleted and self._deleted[place] == value:
            del self._deleted[place]
        else:
            self._added[place] = value

    def _drop(self, place: tuple[SetId, bytes], value: ElementValue) -> None:
        if not self._recording:
            return
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


def _claims(ports: Iterable[ServicePort]) -> dict[Frontend, int]:
    """What a Service claims: 0 for what was allocated to it, its cluster IPs and node ports, 1 for what it wrote."""
    found: dict[Frontend, int] = {}
    for port in ports:
        cluster_ip = encode_address(port.cluster_ip, 4 if port.family == "ip" else 16)
        for frontend in frontends_of(port):
            found[frontend] = min(found.get(frontend, 1), frontend[1] not in (b"", cluster_ip))
    return found


def _follow(held: dict[Frontend, V], gone: Mapping[Frontend, V], come: Mapping[Frontend, V]) -> None:
    """Take one Service's old part out of the whole and put the new one in."""
    for frontend in gone.keys() - come.keys():
        held.pop(frontend, None)
    held.update(come)


def _by_set(changes: Mapping[tuple[SetId, bytes], ElementValue]) -> dict[SetId, dict[bytes, ElementValue]]:
    result: dict[SetId, dict[bytes, ElementValue]] = {}
    for (set_id, key), value in changes.items():
        result.setdefault(set_id, {})[key] = value
    return result
