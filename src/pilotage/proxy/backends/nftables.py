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

from pilotage.nft import Nft, NftError
from pilotage.nft.core.generations import Ledger
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
_AUDIT_LOOKS, _AUDIT_PAUSE_S = 2, 0.02


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NftError as refusal:
        raise BackendError(str(refusal)) from refusal


class NftablesBackend:
    """Holds nothing but what it must compare with: the kernel is the state."""

    inline_elements_max = 1000  # as many take a millisecond, less than handing them to a thread and back may

    def __init__(self, nft: Nft, *, families: Sequence[str] = ("ip",), surroundings: Surroundings) -> None:
        self._nft = nft
        self._families = tuple(families)
        self._surroundings = surroundings
        self._structure: dict[str, Mapping[str, bytes]] = {}
        self._ledger = Ledger()
        self._culprits: tuple[str, ...] = ()
        self._present: set[ChainId] = set()
        self._idle: set[ChainId] = set()  # of those, no element leads to these

    @_refusals()
    def sync(self, plan: Plan) -> int:
        return self._sync(plan)

    def _sync(self, plan: Plan) -> int:
        self._settle()
        chains = self._standing(plan)
        structure = structure_commands(chains, self._families, self._surroundings)
        wanted = Plan(elements=self._own(plan.elements), chains=plan.chains)
        try:
            self._commit(*structure)
            delta = difference(Plan(elements=self._actual(), chains=plan.chains), wanted)
            self._apply_elements(delta)
            changes = delta.size
            self._remove_strays(chains)
            if self._has_stray_sets():
                raise NftError("sets that are none of ours")
        except NftError as refusal:
            if refusal.errno in (errno.EMSGSIZE, errno.ENOMEM):
                raise
            # A table of an older layout, or one that somebody bent: replaced as a whole, still in one transaction.
            changes = self._replace(structure, wanted)
        self._present, self._idle = set(chains), set()
        self._remember_structure()
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
        self._apply_elements(delta)
        self._idle = (self._idle | delta.old_chains) - delta.new_chains
        crowded = len(self._idle) > _IDLE_CHAINS_MAX
        if crowded:
            self._remove_idle()
        if new or crowded:
            self._remember_structure()

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

    @_refusals()
    def disturbed(self) -> bool:
        generation = self._nft.generation()
        heard = self._nft.foreign()
        self._culprits = heard.by
        return self._ledger.disturbed(generation, heard, [table(family) for family in self._families])

    def _settle(self) -> None:
        """Take the kernel as it is from now on: what comes before this is about to be looked at."""
        self._ledger.settle(self._nft.generation())

    @_refusals()
    def audit(self, plan: Plan, *, repair: bool = True) -> tuple[Drift, ...]:
        if not repair:
            return self._difference(plan, self._rehearsed(plan))[1]
        self._settle()
        delta, drift = self._difference(plan, self._structure)
        if any(not one.set for one in drift):
            self._sync(plan)
        elif delta:
            self._apply_elements(delta)
        return tuple(replace(one, by=", ".join(self._culprits)) for one in drift)

    def _difference(self, plan: Plan, intended: Mapping[str, Mapping[str, bytes]]) -> tuple[Delta, tuple[Drift, ...]]:
        """Between plan and kernel; the delta repairs elements only, and is empty when sets or tables are missing."""
        found: list[Drift] = []
        readable = True
        for family in self._families:
            known, now = intended[family], self._nft.structure(table(family))
            for name in sorted(known.keys() | now.keys()):
                if known.get(name) != now.get(name):
                    kind = "missing" if name not in now else "unexpected" if name not in known else "changed"
                    found.append(Drift(family=family, set="", kind=kind, element=name))
                    readable &= not name.startswith(("table", "set")) or kind == "unexpected"
        if not readable:
            return Delta(), tuple(found)
        delta, drift = self._element_drift(plan)
        return delta, tuple(found) + drift

    def _element_drift(self, plan: Plan) -> tuple[Delta, tuple[Drift, ...]]:
        wanted = Plan(elements=self._own(plan.elements), chains=plan.chains)
        delta, drift = compare(wanted, self._actual())
        for _ in range(_AUDIT_LOOKS - 1):
            doubtful = {(one.family, one.set) for one in drift if one.kind == "missing"}
            if not doubtful:
                break
            # A listing made while the kernel grows a table leaves elements out: believe what two looks agree on.
            time.sleep(_AUDIT_PAUSE_S)
            again = {
                (family, name): self._nft.elements(table(family), sets(family).by_name(name))
                for family, name in doubtful
            }
            asked = Plan(elements={one: wanted.elements.get(one, {}) for one in doubtful}, chains=plan.chains)
            second, certain = compare(asked, again)
            drift = tuple(one for one in drift if (one.family, one.set) not in doubtful) + certain
            delta = Delta(
                deleted={one: keys for one, keys in delta.deleted.items() if one not in doubtful}
                | dict(second.deleted),
                added={one: keys for one, keys in delta.added.items() if one not in doubtful} | dict(second.added),
            )
        return delta, drift

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
            if self._nft.has_table(table(family)):
                self._commit(DeleteTable(table(family)))

    def close(self) -> None:
        self._nft.close()

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit(self, *commands: Command) -> None:
        for _ in range(self._nft.apply(Transaction(commands))):
            self._ledger.own()

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
            wanted = {chain.name for chain in static_chains(family, self._surroundings)}
            wanted |= {chain_of(chain).name for chain in chains if chain[0] == family}
            strays = sorted(self._nft.chains(table(family)) - wanted)
            self._commit(*(DeleteChain(table(family), name) for name in strays))

    def _has_stray_sets(self) -> bool:
        for family in self._families:
            wanted = {f"set {one.name}" for one in sets(family).all()}
            if any(name.startswith("set ") and name not in wanted for name in self._nft.structure(table(family))):
                return True
        return False

    def _remove_idle(self) -> None:
        idle = sorted(chain for chain in self._idle & self._present if chain[2] not in _STANDING)
        self._commit(*(DeleteChain(table(chain[0]), chain_of(chain).name) for chain in idle))
        self._present -= set(idle)
        self._idle = set()

    def _remember_structure(self) -> None:
        self._structure = {family: self._nft.structure(table(family)) for family in self._families}

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
