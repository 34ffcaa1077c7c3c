"""What a deletion does to an object."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pilotage.api.catalogue import Resource, lookup
from pilotage.apiserver.core.deletion import finished, mark_deleted
from pilotage.apiserver.core.options import DeleteOptions

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def resource(plural: str) -> Resource:
    found = lookup("", "v1", plural)
    assert found is not None
    return found


def document(spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", **metadata}, "spec": spec or {}, "status": status or {}}


ON_NODE = {"nodeName": "n1"}
CASES: list[Any] = [
    pytest.param("configmaps", document(), {}, True, None, id="a plain object goes at once"),
    pytest.param("configmaps", document(finalizers=["f"]), {}, False, ("12:00:00", 0), id="finalizers hold it"),
    pytest.param("pods", document(), {}, True, None, id="an unscheduled pod goes at once"),
    pytest.param("pods", document(ON_NODE), {}, False, ("12:00:30", 30), id="a running pod gets the default"),
    pytest.param(
        "pods",
        document({**ON_NODE, "terminationGracePeriodSeconds": 5}),
        {},
        False,
        ("12:00:05", 5),
        id="a running pod gets its own period",
    ),
    pytest.param(
        "pods", document(ON_NODE), {"grace_period_s": 2}, False, ("12:00:02", 2), id="the request decides over the pod"
    ),
    pytest.param("pods", document(ON_NODE), {"grace_period_s": 0}, True, None, id="no grace asked for"),
    pytest.param("pods", document(ON_NODE, {"phase": "Succeeded"}), {}, True, None, id="a finished pod goes at once"),
    pytest.param(
        "pods",
        document(ON_NODE, finalizers=["f"]),
        {"grace_period_s": 0},
        False,
        ("12:00:00", 0),
        id="finalizers outlast the grace period",
    ),
    pytest.param(
        "namespaces",
        document({"finalizers": ["kubernetes"]}),
        {},
        False,
        ("12:00:00", 0),
        id="a namespace is emptied first",
    ),
]


@pytest.mark.parametrize(("plural", "before", "options", "gone", "marked"), CASES)
def test_first_deletion(plural: str, before: Any, options: Any, gone: bool, marked: tuple[str, int] | None) -> None:
    assert mark_deleted(resource(plural), before, DeleteOptions(**options), NOW) is gone
    metadata = before["metadata"]
    if marked is None:
        assert "deletionTimestamp" not in metadata
    else:
        assert metadata["deletionTimestamp"] == f"2026-01-01T{marked[0]}Z"
        assert metadata["deletionGracePeriodSeconds"] == marked[1]


@pytest.mark.parametrize(
    ("grace", "stamp", "seconds"),
    [
        pytest.param(None, "12:00:20", 30, id="a plain second deletion changes nothing"),
        pytest.param(15, "12:00:05", 15, id="a shorter period counts from the first deletion"),
        pytest.param(2, "12:00:00", 2, id="a period that has passed ends now"),
        pytest.param(60, "12:00:20", 30, id="a longer period changes nothing"),
    ],
)
def test_second_deletion(grace: int | None, stamp: str, seconds: int) -> None:
    pod = document(ON_NODE, deletionTimestamp="2026-01-01T12:00:20Z", deletionGracePeriodSeconds=30)
    assert mark_deleted(resource("pods"), pod, DeleteOptions(grace_period_s=grace), NOW) is False
    assert pod["metadata"]["deletionTimestamp"] == f"2026-01-01T{stamp}Z"
    assert pod["metadata"]["deletionGracePeriodSeconds"] == seconds


def test_a_deletion_is_finished_when_nothing_holds_it() -> None:
    stamp = {"deletionTimestamp": "2026-01-01T12:00:00Z"}
    assert finished(resource("configmaps"), document(**stamp))
    assert not finished(resource("configmaps"), document())
    assert not finished(resource("configmaps"), document(**stamp, finalizers=["f"]))
    assert not finished(resource("pods"), document(**stamp, deletionGracePeriodSeconds=5))
    assert finished(resource("pods"), document(**stamp, deletionGracePeriodSeconds=0))
    assert not finished(resource("namespaces"), document({"finalizers": ["kubernetes"]}, **stamp))


def test_generation_counts_the_deletion() -> None:
    body = document(generation=4, finalizers=["f"])
    mark_deleted(resource("configmaps"), body, DeleteOptions(), NOW)
    assert body["metadata"]["generation"] == 5
