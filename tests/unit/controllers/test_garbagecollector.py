"""What follows from who owns whom."""

from typing import Any

from pilotage.api.codec import convert
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.controllers.garbagecollector.core import Delete, DropOwners, Graph, Item, RemoveFinalizer, Unblock


def item(name: str, *owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False, block: bool = True) -> Item:
    references = [
        {"apiVersion": "v1", "kind": "Thing", "name": owner, "uid": owner, "blockOwnerDeletion": block}
        for owner in owners
    ]
    meta: dict[str, Any] = {"name": name, "uid": name, "ownerReferences": references, "finalizers": list(finalizers)}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return Item(api_version="v1", kind="Thing", plural="things", meta=convert(ObjectMeta, meta))


def graph(*items: Item) -> Graph:
    made = Graph()
    for each in items:
        made.observe(each)
    return made


def uid(name: str) -> Any:
    return name


def test_an_owned_object_stays() -> None:
    assert graph(item("owner"), item("child", "owner")).decide(uid("child")) == ()


def test_the_owners_end_looks_at_its_dependents_and_deletes_them() -> None:
    made = graph(item("owner"), item("child", "owner"))
    assert made.forget(uid("owner")) == {"child"}
    assert made.unknown_owners(made.items[uid("child")]) == ()
    (action,) = made.decide(uid("child"))
    assert action == Delete(item=made.items[uid("child")], propagation="Background")


def test_an_owner_never_seen_must_be_asked_about() -> None:
    made = graph(item("child", "ghost"))
    child = made.items[uid("child")]
    assert [owner.uid for owner in made.unknown_owners(child)] == ["ghost"]
    assert made.decide(uid("child"), frozenset({uid("ghost")})) == ()
    made.note(uid("ghost"), exists=False)
    assert made.unknown_owners(child) == ()
    assert isinstance(made.decide(uid("child"))[0], Delete)


def test_one_of_two_owners_gone_only_drops_its_reference() -> None:
    made = graph(item("a"), item("b"), item("child", "a", "b"))
    made.forget(uid("a"))
    assert made.decide(uid("child")) == (DropOwners(item=made.items[uid("child")], owners=frozenset({uid("a")})),)


def test_foreground_goes_from_the_leaves_up() -> None:
    waiting = item("top", finalizers=("foregroundDeletion",), deleting=True)
    made = graph(item("top"), item("middle", "top"), item("leaf", "middle"))
    assert made.observe(waiting) >= {"top", "middle"}
    assert made.decide(uid("top")) == ()  # middle blocks it
    (action,) = made.decide(uid("middle"))
    assert action == Delete(item=made.items[uid("middle")], propagation="Foreground")
    made.observe(item("middle", "top", finalizers=("foregroundDeletion",), deleting=True))
    (action,) = made.decide(uid("leaf"))
    assert action == Delete(item=made.items[uid("leaf")], propagation="Background")
    assert made.forget(uid("leaf")) == {"middle"}
    (action,) = made.decide(uid("middle"))
    assert action == RemoveFinalizer(item=made.items[uid("middle")], finalizer="foregroundDeletion")
    assert made.forget(uid("middle")) == {"top"}
    assert isinstance(made.decide(uid("top"))[0], RemoveFinalizer)


def test_a_dependent_that_does_not_block_is_not_waited_for() -> None:
    made = graph(item("child", "top", block=False), item("top", finalizers=("foregroundDeletion",), deleting=True))
    assert isinstance(made.decide(uid("top"))[0], RemoveFinalizer)


def test_a_circle_of_foreground_deletions_is_cut() -> None:
    a = item("a", "b", finalizers=("foregroundDeletion",), deleting=True)
    made = graph(a, item("b", "a"))
    actions = made.decide(uid("b"))
    assert [type(action) for action in actions] == [Unblock, Delete]


def test_orphaning_frees_the_dependents_first() -> None:
    made = graph(item("child", "owner"), item("owner", finalizers=("orphan",), deleting=True))
    actions = made.decide(uid("owner"))
    assert actions == (
        DropOwners(item=made.items[uid("child")], owners=frozenset({uid("owner")})),
        RemoveFinalizer(item=made.items[uid("owner")], finalizer="orphan"),
    )


def test_references_that_change_move_the_edge() -> None:
    made = graph(item("a"), item("b"), item("child", "a"))
    made.observe(item("child", "b"))
    assert made.forget(uid("a")) == set()
    assert made.forget(uid("b")) == {"child"}


def test_what_is_remembered_of_the_dead_is_bounded() -> None:
    made = Graph()
    for number in range(2000):
        made.forget(uid(f"u{number}"))
    assert len(made._exists) == 500
    assert made.items == {}
    assert made.dependents == {}
