"""What every backend must do, whatever it stands on."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotage.storage import (
    Backend,
    Batch,
    CompactedError,
    ConflictError,
    Event,
    EventType,
    MemoryBackend,
    Operation,
    SqliteBackend,
    UnavailableError,
)


async def take(watch: AsyncIterator[Batch], count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        async for batch in watch:
            events += batch.events
            if len(events) >= count:
                break
    return events


async def test_a_new_store_is_empty_at_revision_zero(backend: Backend) -> None:
    assert backend.revision == 0
    assert await backend.get("/a") is None
    listing = await backend.list("/")
    assert (listing.revision, listing.items, listing.more) == (0, (), False)


async def test_create_update_delete_each_take_one_revision(backend: Backend) -> None:
    assert await backend.create("/a", b"1") == 1
    assert await backend.update("/a", b"2", 1) == 2
    found = await backend.get("/a")
    assert found is not None
    assert (found.value, found.create_revision, found.mod_revision, found.version) == (b"2", 1, 2, 2)
    assert await backend.delete("/a", 2) == 3
    assert await backend.get("/a") is None
    assert backend.revision == 3


async def test_a_key_made_again_starts_over(backend: Backend) -> None:
    await backend.create("/a", b"1")
    await backend.delete("/a")
    await backend.create("/a", b"2")
    found = await backend.get("/a")
    assert found is not None
    assert (found.create_revision, found.version) == (3, 1)


async def test_writes_that_expect_another_state_change_nothing(backend: Backend) -> None:
    await backend.create("/a", b"1")
    for write in (
        backend.create("/a", b"x"),
        backend.update("/a", b"x", 7),
        backend.update("/b", b"x", 1),
        backend.delete("/a", 7),
        backend.delete("/b"),
    ):
        with pytest.raises(ConflictError):
            await write
    assert backend.revision == 1
    assert [item.value for item in (await backend.list("/")).items] == [b"1"]


async def test_a_conflict_tells_the_actual_revision(backend: Backend) -> None:
    await backend.create("/a", b"1")
    with pytest.raises(ConflictError) as caught:
        await backend.update("/a", b"x", 7)
    assert (caught.value.key, caught.value.expected, caught.value.actual) == ("/a", 7, 1)


async def test_a_transaction_is_one_revision_or_nothing(backend: Backend) -> None:
    await backend.create("/old", b"1")
    both = (Operation(key="/old", value=None, expected=1), Operation(key="/new", value=b"2", expected=0))
    assert await backend.txn(both) == 2
    with pytest.raises(ConflictError):
        await backend.txn(
            (Operation(key="/third", value=b"3", expected=0), Operation(key="/new", value=b"4", expected=99))
        )
    assert [(item.key, item.mod_revision) for item in (await backend.list("/")).items] == [("/new", 2)]


@pytest.mark.parametrize(
    "operations",
    [(), (Operation(key="/a", value=b"1", expected=0), Operation(key="/a", value=b"2", expected=0))],
    ids=["an empty transaction", "a key twice"],
)
async def test_malformed_transactions_are_refused(backend: Backend, operations: tuple[Operation, ...]) -> None:
    with pytest.raises(ValueError):
        await backend.txn(operations)


async def test_list_returns_a_prefix_in_byte_order_in_pages(backend: Backend) -> None:
    for key in ("/b/2", "/a/1", "/b/10", "/b-c", "/b/é", "/c"):
        await backend.create(key, key.encode())
    listing = await backend.list("/b/")
    assert [item.key for item in listing.items] == ["/b/10", "/b/2", "/b/é"]
    first = await backend.list("/b/", limit=2)
    assert [item.key for item in first.items] == ["/b/10", "/b/2"] and first.more
    second = await backend.list("/b/", limit=2, start_after="/b/2")
    assert [item.key for item in second.items] == ["/b/é"] and not second.more


async def test_a_watch_replays_then_follows(backend: Backend) -> None:
    await backend.create("/a", b"1")
    await backend.create("/b", b"2")
    watch = await backend.watch("/", 1)
    await backend.delete("/a")
    events = await take(aiter(watch), 2)
    assert [(e.type, e.key, e.value, e.mod_revision) for e in events] == [
        (EventType.PUT, "/b", b"2", 2),
        (EventType.DELETE, "/a", b"", 3),
    ]
    await watch.close()


async def test_a_watch_sees_its_prefix_only_but_learns_every_revision(backend: Backend) -> None:
    watch = await backend.watch("/a/", 0)
    await backend.create("/b/1", b"")
    async with asyncio.timeout(5):
        async for batch in watch:
            assert batch.events == ()
            assert batch.revision == 1
            break
    await watch.close()


async def test_a_watch_is_told_before_the_writer(backend: Backend) -> None:
    watch = await backend.watch("/", 0)
    seen: list[int] = []

    async def follow() -> None:
        async for batch in watch:
            seen.append(batch.revision)

    task = asyncio.get_running_loop().create_task(follow())
    await asyncio.sleep(0)
    for index in range(20):
        revision = await backend.create(f"/{index}", b"")
        assert seen and seen[-1] >= revision
    await watch.close()
    await task


async def test_closing_the_store_ends_its_watches(backend: Backend) -> None:
    watch = await backend.watch("/", 0)
    await backend.create("/a", b"")
    await backend.close()
    async with asyncio.timeout(5):
        batches = [batch async for batch in watch]
    assert [event.key for batch in batches for event in batch.events] == ["/a"]
    with pytest.raises(UnavailableError):
        await backend.create("/b", b"")


async def test_history_is_bounded(backend: Backend) -> None:
    for index in range(150):
        await backend.create(f"/{index:03}", b"")
    assert backend.compacted_revision == 50
    with pytest.raises(CompactedError):
        await backend.watch("/", 49)
    watch = await backend.watch("/", 50)
    assert len(await take(aiter(watch), 100)) == 100
    await watch.close()


async def test_compaction_forgets_the_past_and_keeps_the_present(backend: Backend) -> None:
    for index in range(10):
        await backend.create(f"/{index}", b"")
    await backend.compact(7)
    with pytest.raises(CompactedError) as caught:
        await backend.watch("/", 6)
    assert caught.value.oldest == 7
    assert len(await take(aiter(await backend.watch("/", 7)), 3)) == 3
    assert len((await backend.list("/")).items) == 10


async def test_concurrent_writers_get_distinct_revisions_in_watch_order(backend: Backend) -> None:
    watch = await backend.watch("/", 0)
    revisions = await asyncio.gather(*(backend.create(f"/{index}", b"") for index in range(300)))
    assert sorted(revisions) == list(range(1, 301))
    events = await take(aiter(watch), 300)
    assert [event.mod_revision for event in events] == list(range(1, 301))
    await watch.close()


async def test_of_many_updates_from_one_state_exactly_one_wins(backend: Backend) -> None:
    revision = await backend.create("/a", b"0")
    outcomes = await asyncio.gather(
        *(backend.update("/a", str(index).encode(), revision) for index in range(50)), return_exceptions=True
    )
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 49


keys = st.sampled_from(["/a", "/a/b", "/b", "/b/c", "/ü"])
steps = st.lists(
    st.tuples(st.sampled_from(["create", "update", "delete", "stale"]), keys, st.binary(max_size=8)), max_size=40
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_every_backend_equals_a_dict(kind: str, steps: list[tuple[str, str, bytes]]) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "state.db"
            backend: Backend = MemoryBackend() if kind == "memory" else await SqliteBackend.open(path)
            model: dict[str, tuple[bytes, int]] = {}
            watch = await backend.watch("/", 0)
            clock = itertools.count(1)
            for step, key, value in steps:
                revision = next(clock)
                try:
                    match step:
                        case "create":
                            assert await backend.create(key, value) == revision
                            assert key not in model
                            model[key] = (value, revision)
                        case "update":
                            assert await backend.update(key, value, model.get(key, (b"", 0))[1]) == revision
                            model[key] = (value, revision)
                        case "delete":
                            assert await backend.delete(key) == revision
                            del model[key]
                        case "stale":
                            await backend.update(key, value, model.get(key, (b"", 0))[1] + 1)
                            raise AssertionError("a stale write went through")
                except ConflictError:
                    assert step == "stale" or (step == "create") == (key in model)
                    clock = itertools.count(revision)
            last = next(clock) - 1
            assert backend.revision == last
            listing = await backend.list("/")
            assert {item.key: (item.value, item.mod_revision) for item in listing.items} == model
            replayed: dict[str, tuple[bytes, int]] = {}
            for event in await take(aiter(watch), last) if last else []:
                if event.type is EventType.PUT:
                    replayed[event.key] = (event.value, event.mod_revision)
                else:
                    del replayed[event.key]
            assert replayed == model
            await backend.close()
            if kind == "sqlite":
                again = await SqliteBackend.open(path)
                assert again.revision == last
                assert {i.key: (i.value, i.mod_revision) for i in (await again.list("/")).items} == model
                await again.close()

    asyncio.run(check())
