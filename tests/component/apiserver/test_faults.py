"""Hostile requests, slow watchers, clocks that jump: a clear Status for the cause of it, and nobody else disturbed."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from pilotage.apiserver import cache
from pilotage.client import load_kubeconfig
from pilotage.kit.clock import ManualClock
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import CONFIG_MAPS, Http, config_map, connected

JSON, YAML = "application/json", "application/yaml"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
MANY = {f"k{number}": "v" for number in range(100_000)}
# A body of 100,000 keys takes a third of a second of the only thread; a loaded machine several times that.
DISTURBED_S = 10.0


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def patch(*operations: object) -> bytes:
    return json.dumps(operations).encode()


DOUBLING = ({"op": "copy", "from": "/data", "path": f"/data/k{number}"} for number in range(40))


CASES = (
    ("a million open brackets", "POST", JSON, b"[" * 1_000_000, 400, "BadRequest"),
    ("objects 100,000 deep", "POST", JSON, nested(100_000), 400, "BadRequest"),
    ("half an object", "POST", JSON, b"{", 400, "BadRequest"),
    ("not UTF-8", "POST", JSON, b"\xff\xfe{}", 400, "BadRequest"),
    ("a text that is not UTF-8", "POST", JSON, b'{"metadata":{"name":"\xff"}}', 400, "BadRequest"),
    ("no object", "POST", JSON, b"[]", 400, "BadRequest"),
    ("NaN", "POST", JSON, b'{"data":{"a":NaN}}', 400, "BadRequest"),
    ("a number without end", "POST", JSON, b'{"data":' + b"9" * 100_000 + b"}", 400, "BadRequest"),
    ("beyond 3 MiB", "POST", JSON, b" " * (3 * 1024 * 1024 + 1), 413, "RequestEntityTooLarge"),
    ("a type nobody reads", "POST", "text/plain", b"{}", 415, "UnsupportedMediaType"),
    ("YAML with 200,000 open brackets", "POST", YAML, b"[" * 200_000, 400, "BadRequest"),
    ("YAML aliases", "POST", YAML, b"a: &a [x]\nb: [*a, *a]\n", 400, "BadRequest"),
    ("YAML that is none", "POST", YAML, b"a: b: c", 400, "BadRequest"),
    ("YAML of a zero byte", "POST", YAML, b"\x00", 400, "BadRequest"),
    ("a patch of no patch type", "PATCH", JSON, b"{}", 415, "UnsupportedMediaType"),
    ("a merge patch that is a list", "PATCH", MERGE, b"[]", 400, "BadRequest"),
    ("a merge patch of no UTF-8", "PATCH", MERGE, b'{"data":{"a":"\xff"}}', 400, "BadRequest"),
    ("a directive that is a number", "PATCH", STRATEGIC, b'{"$patch":1}', 400, "BadRequest"),
    ("a JSON patch that is an object", "PATCH", JSON_PATCH, b"{}", 400, "BadRequest"),
    ("an operation nobody knows", "PATCH", JSON_PATCH, b'[{"op":"fly"}]', 400, "BadRequest"),
    (
        "a path to nowhere",
        "PATCH",
        JSON_PATCH,
        patch({"op": "add", "path": "/a" * 100_000, "value": 1}),
        422,
        "Invalid",
    ),
    (
        "10,001 operations",
        "PATCH",
        JSON_PATCH,
        patch(*[{"op": "test", "path": "", "value": 1}] * 10_001),
        413,
        "RequestEntityTooLarge",
    ),
    (
        "copies of copies",
        "PATCH",
        JSON_PATCH,
        patch({"op": "add", "path": "/data", "value": {"a": "x"}}, *DOUBLING),
        413,
        "RequestEntityTooLarge",
    ),
    ("an apply of half a list", "PATCH", APPLY, b"[", 400, "BadRequest"),
    ("a deep apply", "PATCH", APPLY, nested(900), 400, "BadRequest"),
)


async def test_what_cannot_be_read_is_refused_with_its_reason(http: Http) -> None:
    assert (await http("POST", CONFIG_MAPS, config_map("m", key="value"))).status == 201
    for case, method, kind, body, status, reason in CASES:
        path = CONFIG_MAPS if method == "POST" else f"{CONFIG_MAPS}/m?fieldManager=test"
        answer = await http(method, path, body, Content_Type=kind)
        assert (answer.status, answer.reason) == (status, reason), f"{case}: {answer.raw[:500]!r}"
        assert 0 < len(answer.body["message"]) < 2_000, case
    assert (await http("GET", f"{CONFIG_MAPS}/m")).body["data"] == {"key": "value"}
    assert (await http("GET", "/readyz")).status == 200


@pytest.mark.parametrize("method", ["POST", APPLY])
async def test_a_map_of_100000_keys_delays_others_no_longer_than_its_own_handling(http: Http, method: str) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": MANY}
    body = json.dumps(document).encode()
    await http("POST", CONFIG_MAPS, config_map("other"))
    if method != "POST":
        await http("POST", CONFIG_MAPS, config_map("m"))
    async with http.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dother") as stream:
        await stream.next()
        path = CONFIG_MAPS if method == "POST" else f"{CONFIG_MAPS}/m?fieldManager=test&force=true"
        large = http(*((method, path, body) if "/" not in method else ("PATCH", path, body)),
                     **({"Content_Type": method} if "/" in method else {}))  # fmt: skip
        small = http("PATCH", f"{CONFIG_MAPS}/other", b'{"data":{"a":"b"}}', Content_Type=MERGE)
        async with asyncio.timeout(DISTURBED_S):
            answers = await asyncio.gather(large, small)
            assert (await stream.next())["type"] == "MODIFIED"
    assert [answer.status for answer in answers] in ([200, 200], [201, 200])
    assert len((await http("GET", f"{CONFIG_MAPS}/m")).body["data"]) == len(MANY)


async def test_100000_annotations_are_too_long(http: Http) -> None:
    document = {"metadata": {"name": "m", "annotations": MANY}}
    answer = await http("POST", CONFIG_MAPS, document)
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert "Too long" in answer.body["message"]


async def test_a_watcher_that_stops_reading_loses_its_place_and_disturbs_nobody(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHANGES_MAX", 50)
    context = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    assert isinstance(context, ssl.SSLContext)
    url = urlsplit(http.server.url)
    # What the client does not take stays with the kernel and the server: both are bounded.
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context, limit=4_096)
    writer.write(
        f"GET {CONFIG_MAPS}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    async with http.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=a") as other:
        body = "x" * 500_000
        for number in range(120):
            await http("POST", CONFIG_MAPS, config_map(f"m{number}", labels={"a": "b"}, data=body))
            assert (await other.take(1)) == [("ADDED", f"m{number}")]
    async with asyncio.timeout(30):
        received = await reader.read(-1)
    writer.close()
    assert b'"type":"ERROR"' in received
    assert b'"code":410' in received
    assert received.count(b'"type":"ADDED"') < 120


async def test_a_clock_that_jumps_stamps_times_and_moves_no_version() -> None:
    clock = ManualClock(datetime.now(UTC))  # noqa: TID251 - certificates are judged by the machine's clock
    async with api_server(clock=clock) as server, connected(server) as http:
        versions, times = [], []
        async with http.watch(f"{CONFIG_MAPS}?watch=1&labelSelector=a") as stream:
            for name, jump in (("first", 0), ("later", 200), ("back", -199)):
                clock.step(timedelta(days=jump))
                created = await http("POST", CONFIG_MAPS, config_map(name, labels={"a": "b"}))
                assert created.status == 201
                versions.append(int(created.version))
                times.append(created.body["metadata"]["creationTimestamp"])
                assert await stream.take(1) == [("ADDED", name)]
        assert versions == sorted(set(versions))
        assert times[0] < times[2] < times[1]
        clock.step(timedelta(days=800))
        refused = await http("GET", CONFIG_MAPS)
        assert (refused.status, refused.reason) == (401, "Unauthorized"), "no certificate lasts that long"
        clock.step(timedelta(days=-800))
        patched = await http("PATCH", f"{CONFIG_MAPS}/later", b'{"data":{"a":"b"}}', Content_Type=MERGE)
        assert patched.status == 200
        assert (await http("DELETE", f"{CONFIG_MAPS}/first")).status == 200
