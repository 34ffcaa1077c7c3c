"""Query parameters, selectors, scales and containers."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.catalogue import lookup
from pilotage.api.status import ApiError
from pilotage.apiserver.core.options import decode_continue, delete_options, encode_continue, list_options
from pilotage.apiserver.core.pods import bound, container_of
from pilotage.apiserver.core.record import Record, encode
from pilotage.apiserver.core.scale import scale_of, scaled
from pilotage.apiserver.core.selection import selection

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(min_value=0, max_value=2**62), st.text(max_size=100))
def test_continue_tokens_round_trip(revision: int, key: str) -> None:
    assert decode_continue(encode_continue(revision, key)) == (revision, key)


@pytest.mark.parametrize("token", ["", "%", "e30", "bm9uc2Vuc2U", "é"])
def test_continue_tokens_of_others_are_refused(token: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_continue(token)
    assert caught.value.reason == "BadRequest"


def test_a_bare_flag_is_true() -> None:
    assert list_options({"watch": "", "allowWatchBookmarks": ""}).bookmarks


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ({}, None, (None, "")),
        ({"gracePeriodSeconds": "5"}, None, (5, "")),
        ({"gracePeriodSeconds": "5"}, {"gracePeriodSeconds": 0}, (0, "")),
        ({}, {"gracePeriodSeconds": -4}, (0, "")),
        ({"propagationPolicy": "Orphan"}, {"propagationPolicy": "Foreground"}, (None, "Foreground")),
        ({}, {"orphanDependents": True}, (None, "Orphan")),
    ],
)
def test_delete_options(query: dict[str, str], body: Any, expected: tuple[int | None, str]) -> None:
    options = delete_options(query, body)
    assert (options.grace_period_s, options.propagation) == expected


def record(**document: Any) -> Record:
    base: dict[str, Any] = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "namespace": "ns"}}
    return Record.from_stored("ns/x", encode({**base, **document}), 1)


@pytest.mark.parametrize(
    ("plural", "fields", "document", "matches"),
    [
        ("pods", "spec.nodeName=n1", {"spec": {"nodeName": "n1"}}, True),
        ("pods", "spec.nodeName=n1", {"spec": {}}, False),
        ("pods", "spec.nodeName!=n1", {}, True),
        ("pods", "status.phase!=Failed,status.phase!=Succeeded", {"status": {"phase": "Failed"}}, False),
        ("pods", "metadata.namespace=ns,metadata.name=x", {}, True),
        ("nodes", "spec.unschedulable=false", {"spec": {}}, True),
        ("nodes", "spec.unschedulable=true", {"spec": {"unschedulable": True}}, True),
        (
            "events",
            "involvedObject.name=p,reason=Killing",
            {"involvedObject": {"name": "p"}, "reason": "Killing"},
            True,
        ),
        ("secrets", "type=kubernetes.io/tls", {"type": "Opaque"}, False),
    ],
)
def test_field_selectors(plural: str, fields: str, document: dict[str, Any], matches: bool) -> None:
    resource = lookup("", "v1", plural)
    assert resource is not None
    assert selection(resource, "", fields).matches(record(**document)) is matches


@pytest.mark.parametrize("fields", ["spec.replicas=1", "metadata.name", "a>b"])
def test_unknown_fields_are_refused(fields: str) -> None:
    resource = lookup("", "v1", "pods")
    assert resource is not None
    with pytest.raises(ApiError):
        selection(resource, "", fields)


def test_scale_round_trip() -> None:
    deployment = {
        "metadata": {"name": "web", "namespace": "ns", "resourceVersion": "7", "labels": {"x": "y"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"replicas": 1},
    }
    scale = scale_of(deployment)
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 1, "selector": "app=web"}
    assert scale["metadata"] == {"name": "web", "namespace": "ns", "resourceVersion": "7"}
    assert scaled(deployment, {**scale, "spec": {"replicas": 5}})["spec"]["replicas"] == 5
    with pytest.raises(ApiError):
        scaled(deployment, {"spec": {"replicas": -1}})


def test_a_replication_controllers_selector_is_a_plain_map() -> None:
    assert scale_of({"metadata": {}, "spec": {"selector": {"a": "b"}}})["status"]["selector"] == "a=b"


BINDINGS: list[Any] = [
    pytest.param({}, {"target": {"kind": "Node", "name": "n1"}}, None, id="an unbound pod"),
    pytest.param({"nodeName": "n2"}, {"target": {"name": "n1"}}, "Conflict", id="a bound pod"),
    pytest.param({"schedulingGates": [{"name": "g"}]}, {"target": {"name": "n1"}}, "Conflict", id="a gated pod"),
    pytest.param({}, {"target": {"kind": "Moon", "name": "n1"}}, "Invalid", id="no node"),
    pytest.param({}, {"target": {}}, "Invalid", id="no name"),
]


@pytest.mark.parametrize(("spec", "binding", "reason"), BINDINGS)
def test_binding(spec: Any, binding: Any, reason: str | None) -> None:
    pod = {"metadata": {"name": "p"}, "spec": spec}
    if reason is None:
        assert bound(pod, binding, NOW)["spec"]["nodeName"] == "n1"
        return
    with pytest.raises(ApiError) as caught:
        bound(pod, binding, NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("spec", "wanted", "expected"),
    [
        ({"containers": [{"name": "a"}]}, "", "a"),
        ({"containers": [{"name": "a"}, {"name": "b"}]}, "b", "b"),
        ({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}, "i", "i"),
        ({"containers": [{"name": "a"}, {"name": "b"}]}, "", None),
        ({"containers": [{"name": "a"}]}, "x", None),
    ],
)
def test_which_container(spec: Any, wanted: str, expected: str | None) -> None:
    pod = {"metadata": {"name": "p"}, "spec": spec}
    if expected is not None:
        assert container_of(pod, wanted) == expected
        return
    with pytest.raises(ApiError) as caught:
        container_of(pod, wanted)
    assert caught.value.reason == "BadRequest"


MATCH = "resourceVersionMatch"
NOT_OLDER = {MATCH: "NotOlderThan"}
INITIAL = {"watch": "true", "sendInitialEvents": "true"}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({}, None),
        ({"resourceVersion": "0"}, None),
        ({"resourceVersion": "0", **NOT_OLDER}, None),
        ({"resourceVersion": "5", **NOT_OLDER}, None),
        ({"resourceVersion": "5", MATCH: "Exact"}, None),
        ({"resourceVersion": "5", MATCH: "Exact", "limit": "3"}, None),
        ({"resourceVersion": "0", MATCH: "Exact"}, 'forbidden for resourceVersion "0"'),
        (NOT_OLDER, "forbidden unless resourceVersion is provided"),
        ({"resourceVersion": "5", MATCH: "Nearly"}, 'Unsupported value: "Nearly"'),
        ({"resourceVersion": "5", "continue": "x", **NOT_OLDER}, "forbidden when continue is provided"),
        ({"resourceVersion": "5", "continue": "x"}, "specifying resource version is not allowed when using continue"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents is forbidden for list"),
        ({"watch": "true", "resourceVersion": "5"}, None),
        ({"watch": "true", "resourceVersion": "5", **NOT_OLDER}, "unless sendInitialEvents is provided"),
        (INITIAL, "requires setting resourceVersionMatch to NotOlderThan"),
        ({**INITIAL, MATCH: "Exact"}, "requires setting resourceVersionMatch to NotOlderThan"),
        ({**INITIAL, **NOT_OLDER}, None),
        ({**INITIAL, **NOT_OLDER, "resourceVersion": "0"}, None),
        ({**INITIAL, **NOT_OLDER, "continue": "x"}, "forbidden when continue is provided"),
        ({"resourceVersion": "x"}, "invalid value 'x'"),
    ],
)
def test_which_parameters_of_lists_and_watches_go_together(query: dict[str, str], why: str | None) -> None:
    if why is None:
        list_options(query)
        return
    with pytest.raises(ApiError, match=re.escape(why)) as caught:
        list_options(query)
    assert caught.value.code in (400, 422)
