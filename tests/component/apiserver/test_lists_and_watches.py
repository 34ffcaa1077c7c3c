"""Reading many: lists, pages, selectors, watches, as API concepts describes them."""

import asyncio
import contextlib
import gzip
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from pilotage.apiserver.core.options import encode_continue
from pilotage.client import load_kubeconfig
from pilotage.testing.wire import CONFIG_MAPS, PODS, Http, config_map, pod

ALL = "/api/v1/configmaps"
INITIAL = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


async def make(http: Http, *names: str, namespace: str = "default", **labels: str) -> list[str]:
    """Create config maps one after another; their versions."""
    versions = []
    for name in names:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        versions.append((await http("POST", path, config_map(name, labels=labels))).version)
    return versions


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer.body["items"]]


async def test_a_list_is_in_key_order_as_of_one_version(http: Http) -> None:
    versions = await make(http, "b", "a")
    await make(http, "z", namespace="kube-public")
    answer = await http("GET", ALL)
    assert (answer.body["kind"], answer.body["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(answer) == ["a", "b", "z"]
    assert int(answer.version) >= int(versions[-1])
    assert names(await http("GET", CONFIG_MAPS)) == ["a", "b"]


async def test_namespaces_whose_names_begin_alike_stay_apart(http: Http) -> None:
    for namespace in ("team", "team-2", "team0"):
        await http("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await make(http, f"in-{namespace}", namespace=namespace)
    assert names(await http("GET", "/api/v1/namespaces/team/configmaps")) == ["in-team"]


SELECTORS: list[Any] = [
    pytest.param("labelSelector=tier%3Dfront", ["a", "c"], id="equality"),
    pytest.param("labelSelector=tier!%3Dfront", ["b", "d"], id="inequality includes the unlabelled"),
    pytest.param("labelSelector=tier+in+(front,back)", ["a", "b", "c"], id="set"),
    pytest.param("labelSelector=!tier", ["d"], id="absence"),
    pytest.param("fieldSelector=metadata.name%3Dc", ["c"], id="a name"),
    pytest.param("fieldSelector=metadata.name%3Dc&labelSelector=tier%3Dback", [], id="both must hold"),
    pytest.param("fieldSelector=metadata.name!%3Dc&labelSelector=tier", ["a", "b"], id="any other name"),
]


@pytest.mark.parametrize(("query", "expected"), SELECTORS)
async def test_selectors(http: Http, query: str, expected: list[str]) -> None:
    await make(http, "a", "c", tier="front")
    await make(http, "b", tier="back")
    await make(http, "d")
    assert names(await http("GET", f"{CONFIG_MAPS}?{query}")) == expected
    assert names(await http("GET", f"{ALL}?{query}")) == expected


async def test_fields_of_pods(http: Http) -> None:
    await http("POST", PODS, pod("a", nodeName="n1"))
    await http("POST", PODS, pod("b"))
    assert names(await http("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")) == ["a"]
    assert names(await http("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3D")) == ["b"]


BAD_QUERIES: list[Any] = [
    "fieldSelector=spec.unknown%3D1",
    "labelSelector=((",
    "limit=-1",
    "resourceVersion=abc",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=Newest&resourceVersion=1",
    "continue=nonsense",
    "sendInitialEvents=true",
    "watch=true&sendInitialEvents=true",
]


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_bad_queries(http: Http, query: str) -> None:
    answer = await http("GET", f"{CONFIG_MAPS}?{query}")
    combined = "sendInitialEvents" in query or "resourceVersionMatch" in query
    assert (answer.status, answer.reason) == ((422, "Invalid") if combined else (400, "BadRequest"))


async def test_pages_are_one_snapshot(http: Http) -> None:
    await make(http, "a", "b", "c", "d", "e")
    first = await http("GET", f"{CONFIG_MAPS}?limit=2")
    assert names(first) == ["a", "b"]
    assert first.body["metadata"]["remainingItemCount"] == 3
    await http("DELETE", f"{CONFIG_MAPS}/c")
    await make(http, "bb")
    token = first.body["metadata"]["continue"]
    second = await http("GET", f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert (names(second), second.version) == (["c", "d"], first.version)
    third = await http("GET", f"{CONFIG_MAPS}?limit=2&continue={second.body['metadata']['continue']}")
    assert names(third) == ["e"] and "continue" not in third.body["metadata"]
    assert names(await http("GET", CONFIG_MAPS)) == ["a", "b", "bb", "d", "e"]


async def test_a_past_version_can_be_listed_exactly(http: Http) -> None:
    versions = await make(http, "a", "b", "c")
    await http("DELETE", f"{CONFIG_MAPS}/a")
    exact = await http("GET", f"{CONFIG_MAPS}?resourceVersion={versions[1]}&resourceVersionMatch=Exact")
    assert (names(exact), exact.version) == (["a", "b"], versions[1])
    newer = await http("GET", f"{CONFIG_MAPS}?resourceVersion={versions[1]}&resourceVersionMatch=NotOlderThan")
    assert names(newer) == ["b", "c"]


async def test_a_version_of_the_future_times_out(http: Http) -> None:
    answer = await http("GET", f"{CONFIG_MAPS}?resourceVersion=999999")
    assert answer.status == 504 and "Too large resource version" in answer.body["message"]


async def test_a_watch_without_a_version_begins_with_what_is_there(http: Http) -> None:
    await make(http, "a", "b")
    async with http.watch(f"{CONFIG_MAPS}?watch=true") as stream:
        assert await stream.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        await make(http, "c")
        await http("PUT", f"{CONFIG_MAPS}/c", config_map("c", x="1"))
        await http("DELETE", f"{CONFIG_MAPS}/c")
        assert await stream.take(3) == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]


async def test_a_watch_resumes_after_a_version(http: Http) -> None:
    versions = await make(http, "a", "b", "c")
    async with http.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={versions[0]}") as stream:
        assert await stream.take(2) == [("ADDED", "b"), ("ADDED", "c")]


async def test_a_deletion_has_a_version_of_its_own(http: Http) -> None:
    (version,) = await make(http, "a")
    await http("DELETE", f"{CONFIG_MAPS}/a")
    async with http.watch(f"{CONFIG_MAPS}?watch=1&resourceVersion={version}") as stream:
        event = await stream.next()
    assert event["type"] == "DELETED" and int(event["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_a_streaming_list_ends_with_its_bookmark(http: Http) -> None:
    _, before = await make(http, "a", "b")
    async with http.watch(f"{CONFIG_MAPS}?{INITIAL}") as stream:
        assert await stream.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        bookmark = await stream.next()
        assert bookmark["type"] == "BOOKMARK"
        metadata = bookmark["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        listed = await http("GET", CONFIG_MAPS)  # the server itself may have written since
        assert int(before) <= int(metadata["resourceVersion"]) <= int(listed.version)
        await make(http, "c")
        assert await stream.take(1) == [("ADDED", "c")]


async def test_objects_enter_and_leave_a_selection(http: Http) -> None:
    await make(http, "other")
    async with http.watch(f"{CONFIG_MAPS}?watch=true&labelSelector=on%3Dyes") as stream:
        await make(http, "a")
        await http("PUT", f"{CONFIG_MAPS}/a", config_map("a", labels={"on": "yes"}))
        await http("PUT", f"{CONFIG_MAPS}/a", config_map("a", labels={"on": "yes"}, x="1"))
        left = await http("PUT", f"{CONFIG_MAPS}/a", config_map("a", labels={"on": "no"}))
        events = [await stream.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[2]["object"]["metadata"]["labels"] == {"on": "yes"}
    assert events[2]["object"]["metadata"]["resourceVersion"] == left.version


async def test_bookmarks_follow_changes_of_other_resources(http: Http) -> None:
    async with http.watch(f"/api/v1/services?{INITIAL}&fieldSelector=metadata.name%3Dnone") as stream:
        await stream.next()
        (version,) = await make(http, "a")
        told = 0
        while told < int(version):  # the server itself writes, too, and may have been told of first
            event = await stream.next()
            assert event["type"] == "BOOKMARK"
            assert event["object"]["kind"] == "Service"
            told = int(event["object"]["metadata"]["resourceVersion"])


async def test_a_watch_ends_after_its_timeout(http: Http) -> None:
    async with http.watch(f"{CONFIG_MAPS}?watch=true&timeoutSeconds=1") as stream:
        with pytest.raises(EOFError):
            await stream.next()


async def test_a_watch_from_a_forgotten_version_is_gone(http: Http) -> None:
    (version,) = await make(http, "a")
    path, kind = f"{CONFIG_MAPS}/a", "application/merge-patch+json"
    for batch in range(0, 4100, 100):
        await asyncio.gather(*(http("POST", CONFIG_MAPS, {"metadata": {"name": f"m{batch + n}"}}) for n in range(100)))
    assert (await http("PATCH", path, {"data": {"x": "y"}}, Content_Type=kind)).status == 200
    answer = await http("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion={version}")
    assert (answer.status, answer.reason) == (410, "Expired")
    answer = await http("GET", f"{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert (answer.status, answer.reason) == (410, "Expired")


async def test_a_client_that_leaves_is_forgotten(http: Http) -> None:
    async with http.watch(f"{CONFIG_MAPS}?watch=true"):
        await make(http, "a")
    async with asyncio.timeout(10):
        while True:
            text = (await http("GET", "/metrics")).raw.decode()
            if "pilotage_apiserver_watches_count 0.0" in text:
                break
            await asyncio.sleep(0.02)


async def test_a_watcher_that_stops_reading_is_cut_off(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotage.apiserver.front.WRITE_TIMEOUT_S", 0.2)
    async with http.watch(f"{CONFIG_MAPS}?watch=true"):
        await http("POST", CONFIG_MAPS, config_map("a", x="x" * 900_000))
        async with asyncio.timeout(20):
            for number in range(1000):
                body = config_map("a", x=str(number) + "x" * 900_000)
                assert (await http("PUT", f"{CONFIG_MAPS}/a", body)).status == 200
                if "pilotage_apiserver_watches_count 0.0" in (await http("GET", "/metrics")).raw.decode():
                    return
    raise AssertionError("a watcher that never reads is still there")


async def test_large_answers_are_compressed_for_remote_clients_only(http: Http) -> None:
    await http("POST", CONFIG_MAPS, config_map("big", x="x" * 200_000))
    answer = await http("GET", CONFIG_MAPS, Accept_Encoding="gzip")
    assert "Content-Encoding" not in answer.headers  # loopback


async def test_a_list_of_many_pieces_is_one_document(http: Http) -> None:
    await asyncio.gather(*(http("POST", CONFIG_MAPS, config_map(f"m{n}", x="x" * 100_000)) for n in range(12)))
    answer = await http("GET", CONFIG_MAPS)
    assert int(answer.headers["Content-Length"]) == len(answer.raw) > 1_200_000
    assert sorted(names(answer)) == sorted(f"m{n}" for n in range(12))


async def test_partial_objects(http: Http) -> None:
    await make(http, "a")
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    answer = await http("GET", CONFIG_MAPS, Accept=accept)
    assert answer.body["kind"] == "PartialObjectMetadataList"
    (item,) = answer.body["items"]
    assert item["kind"] == "PartialObjectMetadata" and "data" not in item and item["metadata"]["name"] == "a"
    accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    async with http.watch(f"{CONFIG_MAPS}?watch=true", Accept=accept) as stream:
        event = await stream.next()
    assert event["object"]["kind"] == "PartialObjectMetadata"


async def test_tables(http: Http) -> None:
    await http("POST", PODS, pod("a"))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = (await http("GET", PODS, Accept=accept)).body
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]][:5] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    (row,) = table["rows"]
    assert row["cells"][:3] == ["a", "0/1", "Pending"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    whole = (await http("GET", f"{PODS}/a?includeObject=Object", Accept=accept)).body
    assert whole["rows"][0]["object"]["spec"]["containers"][0]["name"] == "main"
    async with http.watch(f"{PODS}?watch=true", Accept=accept) as stream:
        event = await stream.next()
        assert event["object"]["rows"][0]["cells"][0] == "a"


async def test_protobuf_is_answered_with_json_where_json_will_do(http: Http) -> None:
    answer = await http("GET", PODS, Accept="application/vnd.kubernetes.protobuf,application/json")
    assert answer.headers["Content-Type"] == "application/json"
    answer = await http("GET", PODS, Accept="application/vnd.kubernetes.protobuf")
    assert (answer.status, answer.reason) == (406, "NotAcceptable")


def test_gzip_is_real() -> None:
    from pilotage.apiserver.responses import _gzip

    assert json.loads(gzip.decompress(_gzip(json.dumps([1] * 100).encode()))) == [1] * 100


async def test_a_list_whose_revision_is_gone_goes_on_from_another_moment_if_the_client_wants(http: Http) -> None:
    for name in ("a", "b", "c"):
        await http("POST", CONFIG_MAPS, config_map(name))
    # As of a revision from before the server's memory.
    old = encode_continue(1, "default/a")
    answer = await http("GET", f"{CONFIG_MAPS}?limit=1&continue={old}")
    assert (answer.status, answer.reason) == (410, "Expired")
    answer = await http("GET", f"{CONFIG_MAPS}?continue={answer.body['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in answer.body["items"]] == ["b", "c"]
    too_new = await http("GET", f"{CONFIG_MAPS}?resourceVersion=99999999")
    assert too_new.status == 504
    assert too_new.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_a_watch_over_http_1_0_is_told_in_plain_lines(http: Http) -> None:
    url = urlsplit(http.server.url)
    context = load_kubeconfig(http.server.kubeconfig_path).ssl_context()
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    path = f"{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dnew"
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head and b"chunked" not in head.lower()
        await http("POST", CONFIG_MAPS, config_map("new"))
        event = json.loads(await reader.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "new")
    writer.close()


async def test_many_watchers_see_every_change_once_and_in_order(http: Http) -> None:
    # More than are told in one turn of the server's loop, while further changes come in.
    watchers, changes = 35, 20
    async with contextlib.AsyncExitStack() as stack:
        path = f"{CONFIG_MAPS}?watch=true&resourceVersion={(await http('GET', CONFIG_MAPS)).version}"
        streams = [await stack.enter_async_context(http.watch(path)) for _ in range(watchers)]
        await asyncio.gather(*(http("POST", CONFIG_MAPS, config_map(f"m{number}")) for number in range(changes)))
        seen = [[(await stream.next())["object"]["metadata"] for _ in range(changes)] for stream in streams]
    versions = [[int(metadata["resourceVersion"]) for metadata in one] for one in seen]
    assert versions[0] == sorted(set(versions[0])) and len(versions[0]) == changes
    assert all(one == versions[0] for one in versions)
