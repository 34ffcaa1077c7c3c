"""Two API servers on one etcd: what is written through one is there through the other, also while etcd fails."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from pilotage.testing.cluster import api_server
from pilotage.testing.etcd import Etcd, etcd
from pilotage.testing.wire import CONFIG_MAPS, Http, config_map, connected

DEADLINE_S = 20


class Pair:
    def __init__(self, store: Etcd, one: Http, other: Http) -> None:
        self.store, self.one, self.other = store, one, other


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with etcd(tmp_path / "etcd") as store, AsyncExitStack() as stack:
        storage = f"etcd:{store.url}"
        # The second is given the first's keys, as an administrator would: tokens of one are good at the other.
        first = await stack.enter_async_context(api_server(storage=storage, data_dir=tmp_path / "one"))
        shutil.copytree(tmp_path / "one" / "pki", tmp_path / "two" / "pki")
        second = await stack.enter_async_context(api_server(storage=storage, data_dir=tmp_path / "two"))
        one, other = [await stack.enter_async_context(connected(server)) for server in (first, second)]
        yield Pair(store, one, other)


async def test_a_watch_at_one_server_follows_writes_at_the_other(pair: Pair) -> None:
    listed = await pair.other("GET", CONFIG_MAPS)
    async with pair.other.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={listed.version}") as stream:
        for number in range(20):
            answer = await pair.one("POST", CONFIG_MAPS, config_map(f"m{number}"))
            assert answer.status == 201
        assert await stream.take(20) == [("ADDED", f"m{number}") for number in range(20)]
    # A version of one is a version of the other: a read that names it waits until it is there.
    got = await pair.other("GET", f"{CONFIG_MAPS}?resourceVersion={answer.version}")
    assert {f"m{number}" for number in range(20)} <= {item["metadata"]["name"] for item in got.body["items"]}


async def test_of_two_servers_that_create_one_object_one_says_it_exists(pair: Pair) -> None:
    answers = await asyncio.gather(*(http("POST", CONFIG_MAPS, config_map("m")) for http in (pair.one, pair.other)))
    assert sorted(answer.status for answer in answers) == [201, 409]
    stale = config_map("m", key="value")
    stale["metadata"]["resourceVersion"] = next(answer for answer in answers if answer.status == 201).version
    answers = [await http("PUT", f"{CONFIG_MAPS}/m", stale) for http in (pair.one, pair.other)]
    assert [answer.status for answer in answers] == [200, 409]


async def test_while_etcd_is_away_reads_go_on_and_writes_say_so(pair: Pair) -> None:
    assert (await pair.one("POST", CONFIG_MAPS, config_map("before"))).status == 201
    async with pair.one.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion=0&labelSelector=!absent") as stream:
        await stream.next()
        await pair.store.kill()
        refused = await pair.one("POST", CONFIG_MAPS, config_map("during"))
        assert (refused.status, refused.reason) == (500, "InternalError")
        assert (await pair.one("GET", f"{CONFIG_MAPS}/before")).status == 200
        assert (await pair.one("GET", "/readyz")).status == 500
        await pair.store.start()
        async with asyncio.timeout(DEADLINE_S):
            while (await pair.other("POST", CONFIG_MAPS, config_map("after"))).status not in (201, 409):
                await asyncio.sleep(0.05)
            while (await pair.one("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.05)
            while True:
                event = await stream.next()
                if event["object"]["metadata"]["name"] == "after":
                    break


async def test_events_are_leased_and_nothing_else_is(pair: Pair) -> None:
    subject = {"kind": "Pod", "namespace": "default", "name": "p"}
    event = {"metadata": {"name": "e"}, "involvedObject": subject}
    assert (await pair.one("POST", "/api/v1/namespaces/default/events", event)).status == 201
    assert (await pair.one("POST", CONFIG_MAPS, config_map("m"))).status == 201
    first, last = (base64.b64encode(key).decode() for key in (b"/registry/", b"/registry0"))
    asked = {"key": first, "range_end": last, "keys_only": True}
    async with aiohttp.ClientSession() as session, session.post(f"{pair.store.url}/v3/kv/range", json=asked) as answer:
        entries = (await answer.json())["kvs"]
    leased = {base64.b64decode(entry["key"]) for entry in entries if entry.get("lease", "0") != "0"}
    assert leased == {b"/registry/core/events/default/e"}
