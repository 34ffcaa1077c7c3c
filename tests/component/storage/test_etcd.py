"""What only a shared store must do: agree, survive its own loss, let keys go."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.storage import (
    ConflictError,
    EtcdBackend,
    EventType,
    OverrunError,
    TooLargeError,
    UnavailableError,
    Watch,
    open_backend,
)
from pilotage.testing.etcd import Etcd, etcd, free_port

DEADLINE_S = 20


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Etcd]:
    async with etcd(tmp_path / "etcd") as started:
        yield started


@pytest.fixture
async def one(server: Etcd) -> AsyncIterator[EtcdBackend]:
    backend = await EtcdBackend.open(server.url)
    yield backend
    await backend.close()


@pytest.fixture
async def other(server: Etcd) -> AsyncIterator[EtcdBackend]:
    backend = await EtcdBackend.open(server.url)
    yield backend
    await backend.close()


async def collect(watch: Watch, count: int) -> list[tuple[str, str, int]]:
    """Type, key and revision of the next events."""
    found: list[tuple[str, str, int]] = []
    async with asyncio.timeout(DEADLINE_S):
        async for batch in watch:
            found += [(event.type.value, event.key, event.mod_revision) for event in batch.events]
            if len(found) >= count:
                break
    return found


async def written(backend: EtcdBackend, key: str) -> int:
    """Create a key as soon as the store takes writes again."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await backend.create(key, b"x")
            except UnavailableError:
                await asyncio.sleep(0.05)
            except ConflictError as conflict:
                return conflict.actual  # an earlier attempt went through although its answer was lost


async def test_two_servers_see_each_others_writes_in_one_order(one: EtcdBackend, other: EtcdBackend) -> None:
    watches = [await backend.watch("/", 0) for backend in (one, other)]
    writes = [backend.create(f"/{name}/{i}", b"x") for i in range(50) for name, backend in (("1", one), ("2", other))]
    revisions = await asyncio.gather(*writes)
    assert sorted(revisions) == list(range(1, 101))
    first, second = [await collect(watch, 100) for watch in watches]
    assert first == second
    assert [revision for _, _, revision in first] == list(range(1, 101))


async def test_of_two_servers_that_write_one_key_one_wins(one: EtcdBackend, other: EtcdBackend) -> None:
    revision = await one.create("/a", b"0")
    writes = (backend.update("/a", b"1", revision) for backend in (one, other) * 10)
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 19


async def test_what_was_listed_is_not_watched_again(one: EtcdBackend, other: EtcdBackend) -> None:
    for number in range(20):
        await one.create(f"/{number}", b"x")
        listing = await other.list("/")
        watch = await other.watch("/", listing.revision)
        await one.create(f"/{number}-next", b"x")
        assert await collect(watch, 1) == [("PUT", f"/{number}-next", listing.revision + 1)]
        await watch.close()


async def test_a_listing_of_many_pages_is_of_one_revision(one: EtcdBackend, other: EtcdBackend) -> None:
    await asyncio.gather(*(one.create(f"/{number:04}", b"x" * 3_000) for number in range(1_200)))
    listing, _ = await asyncio.gather(other.list("/"), one.create("/later", b"x"))
    assert len(listing.items) == listing.revision
    assert (await other.list("/", limit=700, start_after="/0099")).items[-1].key == "/0799"


async def test_a_kill_and_return_of_etcd_loses_nothing_and_repeats_nothing(server: Etcd, one: EtcdBackend) -> None:
    watch = await one.watch("/", 0)
    before = [await one.create(f"/{number}", b"x") for number in range(10)]
    await server.kill()
    with pytest.raises(UnavailableError):
        await one.create("/lost", b"x")
    assert one.failure is not None
    assert one.revision == before[-1]
    await server.start()
    after = await written(one, "/back")
    assert after > before[-1]
    events = await collect(watch, 11)
    assert [revision for _, _, revision in events] == list(range(1, len(events) + 1))
    assert one.failure is None


async def test_an_etcd_that_came_back_empty_is_not_taken_for_the_same(server: Etcd, one: EtcdBackend) -> None:
    for number in range(5):
        await one.create(f"/{number}", b"x")
    watch = await one.watch("/", 0)
    await server.kill()
    server.forget()
    await server.start()
    with pytest.raises(OverrunError):
        await collect(watch, 100)
    assert one.failure is not None and "gone back" in one.failure


async def test_a_key_with_a_time_to_live_goes_by_itself(one: EtcdBackend) -> None:
    watch = await one.watch("/", 0)
    await one.update("/event", b"x", 0, ttl_s=1.0)
    await one.create("/object", b"x")
    events = await collect(watch, 3)
    assert events == [("PUT", "/event", 1), ("PUT", "/object", 2), (EventType.DELETE.value, "/event", 3)]


async def test_a_value_larger_than_etcd_takes_is_refused(one: EtcdBackend) -> None:
    with pytest.raises(TooLargeError):
        await one.create("/a", b"x" * 2_000_000)
    assert await one.create("/b", b"x" * 1_400_000) == 1


async def test_compaction_by_one_server_does_not_disturb_the_other(one: EtcdBackend, other: EtcdBackend) -> None:
    watch = await other.watch("/", 0)
    for number in range(10):
        await one.create(f"/{number}", b"x")
    assert len(await collect(watch, 10)) == 10  # a watch that is further behind than a compaction is cut off, rightly
    await one.compact(8)
    await other.compact(5)
    assert await other.create("/after", b"x") == 11
    assert await collect(watch, 1) == [("PUT", "/after", 11)]


async def test_the_next_endpoint_answers_when_one_does_not(server: Etcd) -> None:
    dead = f"127.0.0.1:{free_port()}"
    alive = server.url.removeprefix("http://")
    backend = await EtcdBackend.open(f"http://{dead},{alive}")
    assert await written(backend, "/a") == 1
    await backend.close()


@pytest.mark.parametrize(
    "url", ["etcd:127.0.0.1:2379", "etcd:http://", "etcd:http://a:1/path", "etcd:http://a:1?password=x"]
)
async def test_malformed_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        await open_backend(url)


async def test_an_etcd_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        await open_backend(f"etcd:http://127.0.0.1:{free_port()}")
