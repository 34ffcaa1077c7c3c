"""Events: one home, two shapes, and an end."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pilotage.apiserver import expiry
from pilotage.apiserver.expiry import expired
from pilotage.kit.clock import ManualClock
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import Http, connected

CORE = "/api/v1/namespaces/default/events"
NEW = "/apis/events.k8s.io/v1/namespaces/default/events"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_what_is_written_through_one_group_is_read_through_the_other(http: Http) -> None:
    subject = {"kind": "Pod", "namespace": "default", "name": "p"}
    body = {
        "metadata": {"name": "p.1", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/tester",
        "reportingInstance": "tester-1",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
        "regarding": subject,
        "note": "all is well",
    }
    created = await http("POST", NEW, body)
    assert created.status == 201, created.body
    assert (created.body["apiVersion"], created.body["note"]) == ("events.k8s.io/v1", "all is well")
    core = (await http("GET", f"{CORE}/p.1")).body
    assert (core["apiVersion"], core["message"], core["involvedObject"]) == ("v1", "all is well", subject)
    kind = "application/merge-patch+json"
    series = {"series": {"count": 2, "lastObservedTime": body["eventTime"]}}
    patched = await http("PATCH", f"{NEW}/p.1", series, Content_Type=kind)
    assert patched.status == 200 and patched.body["series"]["count"] == 2
    assert (await http("GET", f"{NEW}?fieldSelector=regarding.name%3Dp")).body["items"][0]["regarding"] == subject
    assert (await http("GET", f"{CORE}?fieldSelector=involvedObject.name%3Dother")).body["items"] == []
    async with http.watch(f"{NEW}?watch=true") as stream:
        event = await stream.next()
    assert event["object"]["apiVersion"] == "events.k8s.io/v1" and event["object"]["note"] == "all is well"
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    rows = (await http("GET", NEW, Accept=accept)).body["rows"]
    assert "all is well" in rows[0]["cells"] and "pod/p" in rows[0]["cells"]


def test_events_expire_an_hour_after_their_last_change() -> None:
    events = [("old", "2026-01-01T10:59:59Z"), ("new", "2026-01-01T11:30:00.000000Z"), ("odd", "")]
    assert expired(events, NOW) == ["odd", "old"]


async def test_an_event_of_long_ago_is_kept_an_hour_from_when_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_S", 0.01)
    clock = ManualClock(datetime.now(UTC))  # noqa: TID251 - certificates are judged by the machine's clock
    subject = {"kind": "Pod", "namespace": "default", "name": "p"}
    async with api_server(clock=clock) as server, connected(server) as http:
        for name in ("first", "second"):
            body = {"metadata": {"name": name}, "involvedObject": subject, "lastTimestamp": "2020-01-01T00:00:00Z"}
            assert (await http("POST", CORE, body)).status == 201
            clock.step(timedelta(minutes=59))
        async with asyncio.timeout(10):
            while (await http("GET", f"{CORE}/first")).status != 404:
                await asyncio.sleep(0.01)
        assert (await http("GET", f"{CORE}/second")).status == 200
