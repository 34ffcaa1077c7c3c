"""The watch cache: past states and missed changes, against a naive model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.status import ApiError
from pilotage.apiserver import cache as cache_module
from pilotage.apiserver.cache import Cache, ResourceCache, full_key, split_key
from pilotage.apiserver.core.record import encode
from pilotage.kit import InvariantError
from pilotage.storage import Event, EventType, MemoryBackend

names = st.sampled_from(["a/x", "a/y", "a-b/x", "b/x", "b/z"])
steps = st.lists(st.tuples(st.sampled_from(["put", "delete"]), names), max_size=30)


def play(steps: list[tuple[str, str]]) -> tuple[ResourceCache, list[dict[str, int]]]:
    """A cache after the steps, and the state (key → revision) after each of them, the first being empty."""
    cache = Cache(MemoryBackend())
    objects = cache.resource("", "things")
    states: list[dict[str, int]] = [{}]
    for revision, (step, key) in enumerate(steps, 1):
        state = dict(states[-1])
        if step == "put":
            value = encode({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": key}})
            state[key] = revision
        else:
            value = b""
            state.pop(key, None)
        kind = EventType.PUT if step == "put" else EventType.DELETE
        objects.apply(
            key, Event(type=kind, key=key, value=value, create_revision=1, mod_revision=revision, version=1), None
        )
        cache.revision = revision
        states.append(state)
    return objects, states


@given(steps, st.data())
def test_every_past_state_can_be_listed(steps: list[tuple[str, str]], data: st.DataObject) -> None:
    objects, states = play(steps)
    revision = data.draw(st.integers(min_value=0, max_value=len(steps)))
    namespace = data.draw(st.sampled_from(["", "a", "b", "none"]))
    start_after = data.draw(st.sampled_from(["", "a-b/x", "a/x", "b/x"]))
    found = [(record.key, record.revision) for record in objects.scan_at(revision, namespace, start_after)]
    assert found == [
        (key, version)
        for key, version in sorted(states[revision].items())
        if (not namespace or key.startswith(f"{namespace}/")) and key > start_after
    ]


@given(steps, st.data())
def test_a_cursor_replays_exactly_what_came_after(steps: list[tuple[str, str]], data: st.DataObject) -> None:
    objects, states = play(steps)
    revision = data.draw(st.integers(min_value=0, max_value=len(steps)))
    state = dict(states[revision])
    for change in objects.follow(revision).take():
        assert change.record.revision > revision
        assert (change.previous is not None) == (change.record.key in state) == (change.type != "ADDED")
        if change.type == "DELETED":
            del state[change.record.key]
        else:
            state[change.record.key] = change.record.revision
    assert state == states[-1]


@pytest.fixture
def short_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHANGES_MAX", 3)


@pytest.mark.usefixtures("short_history")
def test_what_was_forgotten_is_refused() -> None:
    objects, _ = play([("put", "a/x"), ("put", "a/y"), ("put", "b/x"), ("put", "b/z"), ("delete", "a/x")])
    assert objects.floor == 2
    for revision in (0, 1):
        with pytest.raises(ApiError) as caught:
            objects.follow(revision)
        assert caught.value.code == 410
        with pytest.raises(ApiError):
            objects.scan_at(revision, "")
    assert len(objects.follow(2).take()) == 3


@pytest.mark.usefixtures("short_history")
def test_a_watcher_that_falls_behind_is_told_to_list_again() -> None:
    cache = Cache(MemoryBackend())
    objects = cache.resource("", "things")
    cursor = objects.follow(0)
    value = encode({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}})
    for revision in range(1, 5):
        objects.apply(
            "x",
            Event(type=EventType.PUT, key="x", value=value, create_revision=1, mod_revision=revision, version=revision),
            None,
        )
    with pytest.raises(ApiError) as caught:
        cursor.take()
    assert caught.value.code == 410


@pytest.mark.parametrize(("group", "plural", "key"), [("", "pods", "ns/p"), ("", "nodes", "n"), ("apps", "x", "a/b")])
def test_keys_round_trip(group: str, plural: str, key: str) -> None:
    assert split_key(full_key(group, plural, key)) == (group, plural, key)


def test_a_key_that_is_no_object_is_a_defect() -> None:
    with pytest.raises(InvariantError):
        split_key("/registry/core")
