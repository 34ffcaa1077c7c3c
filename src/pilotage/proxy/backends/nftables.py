"""The nftables backend: plans into tables `ip pilotage` and `ip6 pilotage`.

Apart from `core` because it talks to the kernel through the `Nft` seam; with `FakeNft` behind it, it is the backend of
tests. Tables of others are never read nor written. A restart finds the elements of its predecessor and changes only
what differs, so traffic never meets a gap; rules are replaced in one transaction.
"""

import errno
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from pilotage.nft import Nft, NftError
from pilotage.nft.core.generations import Ledger
from pilotage.nft.core.objects import (
    Command,
    DeleteChain,
    DeleteElements,
    DeleteTable,
    ElementValue,
    PutChain,
    Transaction,
)
from pilotage.proxy.core.commands import (
    element_commands,
    filling_order,
    in_parts,
    stray_removal,
    structure_commands,
    structure_repair,
)
from pilotage.proxy.core.drift import Drift, Part, compare, describe, structure_drift
from pilotage.proxy.core.flows import stale_clients
from pilotage.proxy.core.fragment import ChainId, Frontend, SetId, Target, chain_id, chain_of
from pilotage.proxy.core.layout import Surroundings, sets, static_chains, table
from pilotage.proxy.core.plan import Delta, Plan, difference
from pilotage.proxy.errors import BackendError

# Elements in one batch where the send buffer is the host's default (208 KiB, about 60 bytes each).
_SMALL_BATCH = 2000
_FORGET_ATTEMPTS_MAX = 5  # remembered clients expire while we look; each attempt reads again
# Making a chain costs 20 ms once the maps are large, since libnftables reads them first. So chains for ordinary counts
# stand from the start, and those that fall idle stay a while.
_STANDING = range(1, 17)
_IDLE_CHAINS_MAX = 64
_LOOKUPS_MAX = 1000  # as many take 10 ms
_GROWTH_S = 0.02  # after it, a table that the kernel was growing is listed whole


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NftError as refusal:
        raise BackendError(str(refusal)) from refusal


class NftablesBackend:
    """Holds nothing but what it must compare with: the kernel is the state."""

    limits: Mapping[str, str] = MappingProxyType({})
    inline_elements_max = 1000  # as many take a millisecond, less than handing them to a thread and back may

    def __init__(self, nft: Nft, *, families: Sequence[str] = ("ip",), surroundings: Surroundings) -> None:
        self._nft = nft
        self._families = tuple(families)
        self._surroundings = surroundings
        self._structure: dict[str, dict[str, bytes]] = {}
        self._ledger = Ledger()
        self._culprits: tuple[str, ...] = ()
        self._commits = self._commits_at_look = 0
        self._present: set[ChainId] = set()
        self._idle: set[ChainId] = set()  # of those, no element leads to these

    @_refusals()
    def sync(self, plan: Plan) -> int:
        # Take the kernel as it is from now on: what comes before this is looked at here.
        self._ledger.settle(self._nft.generation())
        chains = self._standing(plan)
        structure = structure_commands(chains, self._families, self._surroundings)
        wanted = Plan(elements=self._own(plan.elements), chains=plan.chains)
        try:
            self._commit(*structure)
            delta = difference(Plan(elements=self._actual(), chains=plan.chains), wanted)
            self._apply_elements(delta)
            changes = delta.size
            self._remove_strays(chains)
        except NftError as refusal:
            if refusal.errno in (errno.EMSGSIZE, errno.ENOMEM):
                raise
            # A table of an older layout, or one that somebody bent: replaced as a whole, still in one transaction.
            changes = self._replace(structure, wanted)
        self._present, self._idle = set(chains), set()
        self._structure = {family: dict(self._nft.structure(table(family))) for family in self._families}
        return changes

    def _standing(self, plan: Plan) -> frozenset[ChainId]:
        standing = {(family, "spread", count) for family in self._families for count in _STANDING}
        return frozenset(chain for chain in plan.chains if chain[0] in self._families) | standing

    @_refusals()
    def apply(self, delta: Delta) -> None:
        new = sorted(chain for chain in delta.new_chains - self._present if chain[0] in self._families)
        if new:
            self._commit(*(PutChain(table(chain[0]), chain_of(chain)) for chain in new))
            self._present |= set(new)
            self._remember(new)
        self._apply_elements(delta)
        self._idle = (self._idle | delta.old_chains) - delta.new_chains
        if len(self._idle) > _IDLE_CHAINS_MAX:
            self._remove_idle()

    @_refusals()
    def forget_clients(self, family: str, sticky: Mapping[Frontend, frozenset[Target]]) -> int:
        if family not in self._families:
            return 0
        affinity = sets(family).affinity
        for _ in range(_FORGET_ATTEMPTS_MAX):
            stale = stale_clients(family, self._nft.elements(table(family), affinity), sticky)
            if not stale:
                return 0
            try:
                self._commit(DeleteElements(table(family), affinity, stale))
            except NftError as refusal:
                if refusal.errno != errno.ENOENT:
                    raise
                continue  # one of them expired meanwhile
            return len(stale)
        return 0

    # ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def parts(self) -> tuple[Part, ...]:
        structure = tuple((family, "") for family in self._families)
        return (*structure, *(part for family in self._families for part in self._set_parts(family)))

    @staticmethod
    def _set_parts(family: str) -> tuple[Part, ...]:
        return tuple((family, name) for name in sorted((one.name for one in sets(family).planned()), key=filling_order))

    @_refusals()
    def disturbed(self) -> tuple[Part, ...]:
        generation = self._nft.generation()
        heard = self._nft.foreign()
        self._culprits = heard.by
        touched = {(place.family, name) for place, name in heard.places if place == table(place.family)}
        if self._ledger.explains(generation, heard):
            return tuple(part for part in self.parts if part in touched)
        return tuple(sorted(self.parts, key=lambda part: part not in touched))

    @_refusals()
    def look(self, part: Part) -> Mapping[bytes, ElementValue]:
        family, name = part
        self._commits_at_look = self._commits
        return self._nft.elements(table(family), sets(family).by_name(name), steady=False) if name else {}

    @_refusals()
    def judge(
        self, part: Part, seen: Mapping[bytes, ElementValue], wanted: Mapping[bytes, ElementValue]
    ) -> tuple[Drift, ...]:
        family, name = part
        if name:
            repair = self._confirmed(part, wanted, compare(part, wanted, seen))
            if repair:
                self._apply_elements(repair)
            drift = describe(repair)
        else:
            drift = structure_drift(family, self._structure[family], self._nft.structure(table(family)))
            if drift:
                self._rebuild(family, {one.element: one.kind for one in drift})
        return tuple(replace(one, by=", ".join(self._culprits)) for one in drift)

    def after(self, part: Part) -> tuple[Part, ...]:
        # Whoever bends rules may have bent elements. Chains that elements led to can go once those are right.
        return () if part[1] else (*self._set_parts(part[0]), part)

    @_refusals()
    def check(self, plan: Plan) -> tuple[Drift, ...]:
        found: list[Drift] = []
        intended = self._rehearsed(plan)
        for family in self._families:
            now = self._nft.structure(table(family))
            found += structure_drift(family, intended[family], now)
            for part in self._set_parts(family):
                if f"set {part[1]}" in now:
                    wanted = plan.elements.get(part, {})
                    found += describe(self._confirmed(part, wanted, compare(part, wanted, self.look(part))))
        return tuple(found)

    def _confirmed(self, part: Part, wanted: Mapping[bytes, ElementValue], repair: Delta) -> Delta:
        """That part of `repair` that still holds: what it rests on was read while the kernel, or we, changed it."""
        if not repair:
            return repair
        family, name = part
        target = sets(family).by_name(name)
        gone, come = repair.deleted.get(part, {}).keys(), repair.added.get(part, {}).keys()
        if self._commits == self._commits_at_look and come <= gone:
            return repair  # a listing may leave out, but adds nothing; what others did meanwhile will be heard of
        doubtful = gone | come
        if target.interval or len(doubtful) > _LOOKUPS_MAX:
            time.sleep(_GROWTH_S)
            return compare(part, wanted, self._nft.elements(table(family), target))
        present = self._nft.lookup(table(family), target, sorted(doubtful))
        return compare(part, {key: wanted[key] for key in doubtful if key in wanted}, present)

    def _rebuild(self, family: str, names: Mapping[str, str]) -> None:
        """Set right what differs by name, and nothing else; what is lost with it is for the parts that come after."""
        own = table(family)
        whole = structure_commands(self._present, (family,), self._surroundings)
        bent = structure_repair(whole, names)
        strays = stray_removal(own, [name for name, kind in names.items() if kind == "unexpected"])
        attempts: list[tuple[Command, ...]] = [(*bent, *strays), bent, (DeleteTable(own), *whole)]
        if any(kind == "changed" and name.startswith("set ") for name, kind in names.items()):
            attempts = attempts[2:]  # rules name the set, so it cannot be declared anew beside them
        if not bent:
            attempts = attempts[:1]  # elements may still lead to strays, which harm nobody else
        for attempt in attempts:
            try:
                self._commit(*attempt)
            except NftError:
                if attempt == attempts[-1] and bent:
                    raise
            else:
                return

    def _rehearsed(self, plan: Plan) -> dict[str, Mapping[str, bytes]]:
        """What the structure should be, without having made it: idle chains of the right form may stand."""
        chains = set(self._standing(plan))
        for family in self._families:
            chains |= {one for name in self._nft.chains(table(family)) if (one := chain_id(family, name)) is not None}
        commands = structure_commands(chains, self._families, self._surroundings)
        return {family: self._nft.rehearse(Transaction(commands), table(family)) for family in self._families}

    @_refusals()
    def cleanup(self) -> None:
        for family in ("ip", "ip6"):
            own = table(family)
            if self._nft.has_table(own):
                # First what packets enter by: one that is on its way while all goes at once may find the maps empty
                # before the rules and sets are (seen on Linux 6.18), and be refused though another backend serves it.
                entries = {chain.name for chain in static_chains(family, self._surroundings) if chain.hook is not None}
                self._commit(*(DeleteChain(own, name) for name in sorted(entries & self._nft.chains(own))))
                self._commit(DeleteTable(own))

    def close(self) -> None:
        self._nft.close()

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit(self, *commands: Command) -> None:
        for _ in range(self._nft.apply(Transaction(commands))):
            self._ledger.own()
            self._commits += 1

    def _apply_elements(self, delta: Delta) -> None:
        deleted, added = self._own(delta.deleted), self._own(delta.added)
        try:
            self._commit(*element_commands(deleted, added))
        except NftError as refusal:
            if refusal.errno != errno.EMSGSIZE:
                raise
            # Without privilege over the host a batch is bounded by net.core.wmem_max. In parts, endpoints come before
            # the addresses that lead to them, so a client meets an old state or a new one, never half an address.
            for part in in_parts(deleted, added, _SMALL_BATCH):
                self._commit(*part)

    def _replace(self, structure: tuple[Command, ...], wanted: Plan) -> int:
        tables = tuple(DeleteTable(table(family)) for family in self._families)
        self._commit(*tables, *structure, *element_commands({}, wanted.elements))
        return sum(map(len, wanted.elements.values()))

    def _actual(self) -> dict[SetId, dict[bytes, ElementValue]]:
        return {
            (family, one.name): self._nft.elements(table(family), one)
            for family in self._families
            for one in sets(family).planned()
        }

    def _remove_strays(self, chains: frozenset[ChainId]) -> None:
        for family in self._families:
            wanted = {f"chain {chain.name}" for chain in static_chains(family, self._surroundings)}
            wanted |= {f"chain {chain_of(chain).name}" for chain in chains if chain[0] == family}
            wanted |= {"table", *(f"set {one.name}" for one in sets(family).all())}
            self._commit(*stray_removal(table(family), sorted(self._nft.structure(table(family)).keys() - wanted)))

    def _remove_idle(self) -> None:
        idle = sorted(chain for chain in self._idle & self._present if chain[2] not in _STANDING)
        self._commit(*(DeleteChain(table(chain[0]), chain_of(chain).name) for chain in idle))
        self._present -= set(idle)
        self._idle = set()
        for chain in idle:
            del self._structure[chain[0]][f"chain {chain_of(chain).name}"]

    def _remember(self, chains: Iterable[ChainId]) -> None:
        """How the kernel spells these chains, and no others: what somebody bent meanwhile is not intended."""
        for family in {chain[0] for chain in chains}:
            now = self._nft.structure(table(family))
            names = [f"chain {chain_of(chain).name}" for chain in chains if chain[0] == family]
            self._structure[family] |= {name: now.get(name, b"") for name in names}

    def _own(self, elements: Mapping[SetId, Mapping[bytes, ElementValue]]) -> dict[SetId, Mapping[bytes, ElementValue]]:
        return {set_id: content for set_id, content in elements.items() if set_id[0] in self._families}
