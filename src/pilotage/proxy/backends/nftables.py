"""The nftables backend: plans into tables `ip pilotage` and `ip6 pilotage`.

Apart from `core` because it talks to the kernel through the `Nft` seam; with `FakeNft` behind it, it is the backend of
tests. Tables of others are never read nor written. A restart finds the elements of its predecessor and changes only
what differs, so traffic never meets a gap; rules are replaced in one transaction.
"""

import errno
import time
from collections.abc import Iterable, Mapping, Sequence

from pilotage.nft import Nft, NftError
from pilotage.nft.core.objects import (
    AddElements,
    AddSet,
    AddTable,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteTable,
    ElementValue,
    PutChain,
    Transaction,
)
from pilotage.proxy.core.drift import Drift, compare
from pilotage.proxy.core.flows import stale_clients
from pilotage.proxy.core.fragment import ChainId, Frontend, SetId, Target, chain_of
from pilotage.proxy.core.layout import Surroundings, sets, static_chains, table
from pilotage.proxy.core.plan import Delta, Plan, difference

# Elements in one batch where the send buffer is the host's default (208 KiB, about 60 bytes each).
_SMALL_BATCH = 2000
_FORGET_ATTEMPTS_MAX = 5  # remembered clients expire while we look; each attempt reads again
# Making a chain costs 20 ms once the maps are large, since libnftables reads them first. So chains for ordinary counts
# stand from the start, and those that fall idle stay a while.
_STANDING = range(1, 17)
_IDLE_CHAINS_MAX = 64
_AUDIT_LOOKS, _AUDIT_PAUSE_S = 2, 0.02


class NftablesBackend:
    """Holds nothing but what it must compare with: the kernel is the state."""

    def __init__(self, nft: Nft, *, families: Sequence[str] = ("ip",), surroundings: Surroundings) -> None:
        self._nft = nft
        self._families = tuple(families)
        self._surroundings = surroundings
        self._structure: dict[str, Mapping[str, bytes]] = {}
        self._generation = 0
        self._present: set[ChainId] = set()
        self._idle: set[ChainId] = set()  # of those, no element leads to these

    def sync(self, plan: Plan) -> int:
        chains = plan.chains | {(family, "spread", count) for family in self._families for count in _STANDING}
        structure = structure_commands(chains, self._families, self._surroundings)
        wanted = Plan(elements=self._own(plan.elements), chains=plan.chains)
        try:
            self._nft.apply(Transaction(structure))
            delta = difference(Plan(elements=self._actual(), chains=plan.chains), wanted)
            self._apply_elements(delta)
            changes = delta.size
        except NftError as refusal:
            if refusal.errno in (errno.EMSGSIZE, errno.ENOMEM):
                raise
            # A table of an older layout, or one that somebody bent: replaced as a whole, still in one transaction.
            changes = self._replace(structure, wanted)
        self._remove_strays(chains)
        self._present, self._idle = set(chains), set()
        self._remember_structure()
        return changes

    def apply(self, delta: Delta) -> None:
        new = sorted(chain for chain in delta.new_chains - self._present if chain[0] in self._families)
        if new:
            self._nft.apply(Transaction(tuple(PutChain(table(chain[0]), chain_of(chain)) for chain in new)))
            self._present |= set(new)
        self._apply_elements(delta)
        self._idle = (self._idle | delta.old_chains) - delta.new_chains
        crowded = len(self._idle) > _IDLE_CHAINS_MAX
        if crowded:
            self._remove_idle()
        if new or crowded:
            self._remember_structure()
        else:
            self._generation = self._nft.generation()

    def forget_clients(self, family: str, sticky: Mapping[Frontend, frozenset[Target]]) -> int:
        affinity = sets(family).affinity
        if family not in self._families or affinity is None:
            return 0
        for _ in range(_FORGET_ATTEMPTS_MAX):
            stale = stale_clients(family, self._nft.elements(table(family), affinity), sticky)
            if not stale:
                return 0
            try:
                self._nft.apply(Transaction((DeleteElements(table(family), affinity, stale),)))
            except NftError as refusal:
                if refusal.errno != errno.ENOENT:
                    raise
                continue  # one of them expired meanwhile
            return len(stale)
        return 0

    def disturbed(self) -> bool:
        return self._nft.generation() != self._generation

    def audit(self, plan: Plan) -> tuple[Drift, ...]:
        bent = self._structure_drift()
        if bent:
            self.sync(plan)
            return bent
        wanted = Plan(elements=self._own(plan.elements), chains=plan.chains)
        for _ in range(_AUDIT_LOOKS):
            generation = self._nft.generation()
            repair, drift = compare(wanted, self._actual())
            if not drift:
                break
            # A listing made while the kernel grows a table leaves elements out: believe what two looks agree on.
            time.sleep(_AUDIT_PAUSE_S)
        if repair:
            self._apply_elements(repair)
            generation = self._nft.generation()
        self._generation = generation
        return drift

    def _structure_drift(self) -> tuple[Drift, ...]:
        found = []
        for family in self._families:
            known, now = self._structure.get(family, {}), self._nft.structure(table(family))
            for name in sorted(known.keys() | now.keys()):
                if known.get(name) != now.get(name):
                    kind = "missing" if name not in now else "unexpected" if name not in known else "changed"
                    found.append(Drift(family=family, set="", kind=kind, element=name))
        return tuple(found)

    def cleanup(self) -> None:
        for family in ("ip", "ip6"):
            if self._nft.has_table(table(family)):
                self._nft.apply(Transaction((DeleteTable(table(family)),)))

    def close(self) -> None:
        self._nft.close()

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _apply_elements(self, delta: Delta) -> None:
        commands = element_commands(self._own(delta.deleted), self._own(delta.added))
        try:
            self._nft.apply(Transaction(commands))
        except NftError as refusal:
            if refusal.errno != errno.EMSGSIZE:
                raise
            # Without privilege over the host a batch is bounded by net.core.wmem_max. In parts, endpoints come before
            # the addresses that lead to them, so a client meets an old state or a new one, never half an address.
            for part in in_parts(self._own(delta.deleted), self._own(delta.added), _SMALL_BATCH):
                self._nft.apply(Transaction(part))

    def _replace(self, structure: tuple[Command, ...], wanted: Plan) -> int:
        tables = tuple(DeleteTable(table(family)) for family in self._families)
        elements = element_commands({}, wanted.elements)
        self._nft.apply(Transaction(tables + structure + elements))
        return sum(map(len, wanted.elements.values()))

    def _actual(self) -> dict[SetId, dict[bytes, ElementValue]]:
        return {
            (family, one.name): self._nft.elements(table(family), one)
            for family in self._families
            for one in sets(family).planned()
        }

    def _remove_strays(self, chains: frozenset[ChainId]) -> None:
        for family in self._families:
            wanted = {chain.name for chain in static_chains(family, self._surroundings)}
            wanted |= {chain_of(chain).name for chain in chains if chain[0] == family}
            strays = sorted(self._nft.chains(table(family)) - wanted)
            self._nft.apply(Transaction(tuple(DeleteChain(table(family), name) for name in strays)))

    def _remove_idle(self) -> None:
        idle = sorted(chain for chain in self._idle & self._present if chain[2] not in _STANDING)
        self._nft.apply(Transaction(tuple(DeleteChain(table(chain[0]), chain_of(chain).name) for chain in idle)))
        self._present -= set(idle)
        self._idle = set()

    def _remember_structure(self) -> None:
        self._structure = {family: self._nft.structure(table(family)) for family in self._families}
        self._generation = self._nft.generation()

    def _own(self, elements: Mapping[SetId, Mapping[bytes, ElementValue]]) -> dict[SetId, Mapping[bytes, ElementValue]]:
        return {set_id: content for set_id, content in elements.items() if set_id[0] in self._families}


def structure_commands(
    chains: Iterable[ChainId], families: Iterable[str], surroundings: Surroundings
) -> tuple[Command, ...]:
    """Tables, sets and chains, each after what it names."""
    commands: list[Command] = []
    wanted = sorted(chains)
    for family in families:
        own = table(family)
        commands.append(AddTable(own))
        commands += [AddSet(own, one) for one in sets(family).all()]
        commands += [PutChain(own, chain_of(chain)) for chain in wanted if chain[0] == family]
        commands += [PutChain(own, chain) for chain in static_chains(family, surroundings)]
    return tuple(commands)


def element_commands(
    deleted: Mapping[SetId, Mapping[bytes, ElementValue]], added: Mapping[SetId, Mapping[bytes, ElementValue]]
) -> tuple[Command, ...]:
    """Deletions, then additions: a changed element is both."""
    commands: list[Command] = []
    for set_id, keys in deleted.items():
        commands.append(DeleteElements(table(set_id[0]), sets(set_id[0]).by_name(set_id[1]), keys))
    for set_id, elements in added.items():
        commands.append(AddElements(table(set_id[0]), sets(set_id[0]).by_name(set_id[1]), elements))
    return tuple(commands)


def in_parts(
    deleted: Mapping[SetId, Mapping[bytes, ElementValue]],
    added: Mapping[SetId, Mapping[bytes, ElementValue]],
    size: int,
) -> Iterable[tuple[Command, ...]]:
    """The same commands in batches of `size` keys: endpoints that come, then addresses, then endpoints that go."""

    def is_backend(set_id: SetId) -> bool:
        return set_id[1].endswith("backends")

    steps: list[list[tuple[SetId, bytes]]] = [[], [], []]
    for set_id in sorted(deleted.keys() | added.keys()):
        gone, come = deleted.get(set_id, {}), added.get(set_id, {})
        for key in gone.keys() | come.keys():
            steps[1 if not is_backend(set_id) else 0 if key in come else 2].append((set_id, key))
    for step in steps:
        for start in range(0, len(step), size):
            part = step[start : start + size]
            here: tuple[dict[SetId, dict[bytes, ElementValue]], ...] = ({}, {})
            for set_id, key in part:
                for side, content in zip((deleted, added), here, strict=True):
                    if key in side.get(set_id, {}):
                        content.setdefault(set_id, {})[key] = side[set_id][key]
            yield element_commands(*here)
