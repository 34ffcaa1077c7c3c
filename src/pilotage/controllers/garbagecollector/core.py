"""Who owns whom, and what follows from it for one object.

Stands apart as the pure core: `observe` and `forget` keep the graph, `decide` reads it. Holds metadata objects that the
informers hold anyway, so an object costs a few hundred bytes. Leaves out asking the server: owners that the graph does
not know are named by `unknown_owners` and answered through `note`.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from pilotage.api.meta_v1 import UID, ObjectMeta, OwnerReference

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
VERDICTS_MAX = 500
"""Answers about unknown owners that are remembered, as kube-controller-manager's absentOwnerCache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object: where it lives and its metadata."""

    api_version: str
    kind: str
    plural: str
    meta: ObjectMeta

    @property
    def waits_for_dependents(self) -> bool:
        return self.meta.is_deleting and FOREGROUND in self.meta.finalizers


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFinalizer:
    """Take one finalizer off `item`."""

    item: Item
    finalizer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOwners:
    """Remove references to `owners` from `item`."""

    item: Item
    owners: frozenset[UID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unblock:
    """Keep the references of `item` but let none of them block its owner's deletion."""

    item: Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete `item` if it is still as it was seen."""

    item: Item
    propagation: str


Action = RemoveFinalizer | DropOwners | Unblock | Delete


@dataclass(slots=True)
class Graph:
    """Every object known, and by owner the objects that refer to it."""

    items: dict[UID, Item] = field(default_factory=dict)
    dependents: dict[UID, set[UID]] = field(default_factory=dict)
    _exists: "OrderedDict[UID, bool]" = field(default_factory=OrderedDict)  # what the server said of unknown owners

    def observe(self, item: Item) -> set[UID]:
        """A new or changed object; returns the objects to look at."""
        uid = item.meta.uid
        old = self.items.get(uid)
        self.items[uid] = item
        before = {owner.uid for owner in old.meta.owner_references} if old else set()
        after = {owner.uid for owner in item.meta.owner_references}
        for owner in before - after:
            self._unlink(owner, uid)
        for owner in after - before:
            self.dependents.setdefault(owner, set()).add(uid)
        look: set[UID] = set()
        # Most changes (a status, a label) alter nothing here; a new object is always looked at once.
        is_news = old is None or _inputs(old) != _inputs(item)
        if is_news and (item.meta.owner_references or item.meta.is_deleting):
            look.add(uid)
        if item.waits_for_dependents and not (old and old.waits_for_dependents):
            look |= self.dependents.get(uid, set())
        # An owner that waits may have lost its last blocking dependent.
        look |= {owner for owner in before if owner in self.items and self.items[owner].waits_for_dependents}
        return look

    def forget(self, uid: UID) -> set[UID]:
        """The object is gone; returns the objects to look at: its dependents, and owners that waited for it."""
        item = self.items.pop(uid, None)
        self.note(uid, exists=False)
        if item is None:
            return set()
        look = set(self.dependents.get(uid, ()))
        for owner in item.meta.owner_references:
            self._unlink(owner.uid, uid)
            if owner.uid in self.items and self.items[owner.uid].waits_for_dependents:
                look.add(owner.uid)
        return look

    def unknown_owners(self, item: Item) -> tuple[OwnerReference, ...]:
        """Owners about which the server must be asked before `decide`."""
        if item.meta.is_deleting:
            return ()
        return tuple(
            owner
            for owner in item.meta.owner_references
            if owner.uid not in self.items and self._exists.get(owner.uid) is not False
        )

    def note(self, uid: UID, *, exists: bool) -> None:
        """The server's answer about an owner. Absence is final, since a uid never comes back; presence is not kept."""
        self._exists.pop(uid, None)
        if not exists:
            self._exists[uid] = False
            while len(self._exists) > VERDICTS_MAX:
                self._exists.popitem(last=False)

    def decide(self, uid: UID, present: frozenset[UID] = frozenset()) -> tuple[Action, ...]:
        """What to do about one object now. `present`: unknown owners that the server has just confirmed."""
        item = self.items.get(uid)
        if item is None:
            return ()
        if item.meta.is_deleting:
            return self._decide_deleting(item)
        if not item.meta.owner_references:
            return ()
        solid, waiting, dangling = self._classify(item, present)
        if solid:
            lost = frozenset(owner.uid for owner in (*waiting, *dangling))
            return (DropOwners(item=item, owners=lost),) if lost else ()
        if waiting and self.dependents.get(uid):
            # Going down with its owner, and its own dependents go first; a circle of waiting owners is cut here.
            circular = any(self.items[child].waits_for_dependents for child in self._known_dependents(uid))
            cut: tuple[Action, ...] = (Unblock(item=item),) if circular else ()
            return (*cut, Delete(item=item, propagation="Foreground"))
        if ORPHAN in item.meta.finalizers:
            return (Delete(item=item, propagation="Orphan"),)
        if FOREGROUND in item.meta.finalizers:
            return (Delete(item=item, propagation="Foreground"),)
        return (Delete(item=item, propagation="Background"),)

    def _decide_deleting(self, item: Item) -> tuple[Action, ...]:
        uid = item.meta.uid
        if ORPHAN in item.meta.finalizers:
            freed = [
                DropOwners(item=self.items[child], owners=frozenset({uid}))
                for child in sorted(self._known_dependents(uid))
            ]
            return (*freed, RemoveFinalizer(item=item, finalizer=ORPHAN))
        if FOREGROUND in item.meta.finalizers and not self._blocking(uid):
            return (RemoveFinalizer(item=item, finalizer=FOREGROUND),)
        return ()

    def _classify(
        self, item: Item, present: frozenset[UID]
    ) -> tuple[list[OwnerReference], list[OwnerReference], list[OwnerReference]]:
        """Owners that exist, that are going and wait for their dependents, and that are gone."""
        solid: list[OwnerReference] = []
        waiting: list[OwnerReference] = []
        dangling: list[OwnerReference] = []
        for owner in item.meta.owner_references:
            known = self.items.get(owner.uid)
            if known is not None:
                (waiting if known.waits_for_dependents else solid).append(owner)
            elif owner.uid in present:
                solid.append(owner)
            else:
                dangling.append(owner)
        return solid, waiting, dangling

    def _blocking(self, uid: UID) -> bool:
        return any(
            owner.uid == uid and owner.block_owner_deletion
            for child in self._known_dependents(uid)
            for owner in self.items[child].meta.owner_references
        )

    def _known_dependents(self, uid: UID) -> set[UID]:
        return {child for child in self.dependents.get(uid, ()) if child in self.items}

    def _unlink(self, owner: UID, dependent: UID) -> None:
        children = self.dependents.get(owner)
        if children is not None:
            children.discard(dependent)
            if not children:
                del self.dependents[owner]


def _inputs(item: Item) -> tuple[object, ...]:
    return (item.meta.owner_references, item.meta.finalizers, item.meta.is_deleting)
