"""Server-side apply and the tracking of ordinary updates: who owns what, conflicts, removal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.catalogue import Resource, by_kind
from pilotage.api.patch import ApplyConflict, PatchError, server_side_apply, track_update
from pilotage.api.patch.apply import merge
from pilotage.api.patch.fieldset import difference, intersection, members, union
from pilotage.api.schema import schema_of

T0, T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"


def resource(kind: str, group: str = "") -> Resource:
    found = by_kind(group, "v1", kind)
    assert found is not None
    return found


SERVICE = resource("Service")
CONFIG_MAP = resource("ConfigMap")


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def config(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def apply(live: dict[str, Any] | None, applied: dict[str, Any], manager: str, **options: Any) -> dict[str, Any]:
    which = SERVICE if applied["kind"] == "Service" else CONFIG_MAP
    return server_side_apply(live, applied, which, manager=manager, now=options.pop("now", T0), **options)


def owners(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["manager"]: entry["fieldsV1"] for entry in document["metadata"].get("managedFields", [])}


def test_the_first_apply_creates_and_owns_its_leaves() -> None:
    created = apply(None, service(selector={"a": "b"}, ports=[{"port": 80, "name": "http"}]), "me")
    assert owners(created) == {
        "me": {
            "f:spec": {
                "f:selector": {},
                "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}},
            }
        }
    }


def test_applying_twice_changes_nothing_and_returns_the_live_object() -> None:
    live = apply(None, service(type="ClusterIP"), "me")
    assert apply(live, service(type="ClusterIP"), "me", now=T1) is live


def test_a_conflict_names_owner_version_time_and_field() -> None:
    live = track_update(None, config(a="1"), CONFIG_MAP, manager="kubectl-client-side-apply", now=T0)
    with pytest.raises(ApplyConflict) as refused:
        apply(live, config(a="2"), "me")
    assert str(refused.value) == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1 at 2026-01-01T00:00:00Z: '
        ".data.a"
    )
    assert [(c.reason, c.field) for c in refused.value.details.causes] == [("FieldManagerConflict", ".data.a")]


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("", "ab", "ab"),
        ("x", "y", "xy"),
        ("ab", "bc", "abc"),
        ("xz", "yz", "xyz"),
        ("x", "yx", "yx"),
        ("abc", "ca", "bca"),
        ("abcd", "dxa", "bcdxa"),
        ("abcd", "abcd", "abcd"),
    ],
)
def test_elements_keep_both_orders_and_the_applied_one_where_they_differ(live: str, applied: str, merged: str) -> None:
    schema = schema_of("io.k8s.api.core.v1.PodSpec").properties["volumes"]
    one, other, both = ([{"name": name} for name in names] for names in (live, applied, merged))
    assert merge(one, other, schema) == both


def test_several_conflicts_are_listed_by_owner() -> None:
    live = apply(None, config(a="1", b="1"), "first")
    with pytest.raises(ApplyConflict, match=r'2 conflicts: conflicts with "first":\n- .data.a\n- .data.b'):
        apply(live, config(a="2", b="2"), "second")


def test_force_takes_the_field_over() -> None:
    live = apply(None, config(a="1", b="1"), "first")
    taken = apply(live, config(a="2"), "second", force=True)
    assert taken["data"] == {"a": "2", "b": "1"}
    assert owners(taken) == {"first": {"f:data": {"f:b": {}}}, "second": {"f:data": {"f:a": {}}}}


def test_the_same_value_is_shared_without_conflict_and_stays_until_the_last_owner_leaves() -> None:
    live = apply(None, config(a="1", b="1"), "first")
    shared = apply(live, config(a="1"), "second")
    without_first = apply(shared, config(b="1"), "first")
    assert without_first["data"] == {"a": "1", "b": "1"}
    gone = apply(without_first, config(), "second")
    assert gone["data"] == {"b": "1"}


def test_an_element_no_longer_applied_goes_with_its_defaults() -> None:
    live = apply(None, service(ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]), "me")
    for port in live["spec"]["ports"]:
        port["targetPort"] = port["port"]  # as defaulting does, owned by nobody
    after = apply(live, service(ports=[{"port": 81, "name": "b"}]), "me")
    assert after["spec"]["ports"] == [{"port": 81, "name": "b", "targetPort": 81}]


def test_an_element_somebody_else_owns_a_field_of_stays() -> None:
    live = apply(None, service(ports=[{"port": 80, "name": "a"}]), "me")
    live = apply(live, service(ports=[{"port": 80, "nodePort": 30080}]), "other")
    after = apply(live, service(type="NodePort"), "me")
    assert after["spec"]["ports"] == [{"port": 80, "nodePort": 30080}]


def test_finalizers_are_a_set() -> None:
    one, two = config(), config()
    one["metadata"]["finalizers"] = ["x"]
    two["metadata"]["finalizers"] = ["y"]
    live = apply(apply(None, one, "first"), two, "second")
    assert sorted(live["metadata"]["finalizers"]) == ["x", "y"]
    assert apply(live, config(), "first")["metadata"]["finalizers"] == ["y"]


def test_an_atomic_map_has_one_owner() -> None:
    live = apply(None, service(selector={"a": "1"}), "first")
    with pytest.raises(ApplyConflict, match=r"\.spec\.selector"):
        apply(live, service(selector={"b": "1"}), "second")


def test_kubectl_moves_over_from_its_own_client_side_apply_without_conflict() -> None:
    written = config(a="1")
    written["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": '{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1"}}'
    }
    live = track_update(None, written, CONFIG_MAP, manager="kubectl-client-side-apply", now=T0)
    assert apply(live, config(a="2"), "kubectl")["data"] == {"a": "2"}
    with pytest.raises(ApplyConflict):
        apply(live, config(a="2"), "somebody-else")


def test_an_untracked_object_belongs_to_a_placeholder() -> None:
    with pytest.raises(ApplyConflict, match='conflict with "before-first-apply" using v1'):
        apply(config(a="1"), config(a="2"), "me")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"ports": [{"port": 80}, {"port": 80}]}, "duplicate entries for key", id="duplicate keys"),
        pytest.param({"ports": [{"name": "a"}]}, 'omits key field "port"', id="missing key"),
        pytest.param({"nonsense": 1}, 'unknown field "spec.nonsense"', id="unknown field"),
    ],
)
def test_a_configuration_that_cannot_be_applied(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text) as refused:
        apply(None, service(**spec), "me")
    assert getattr(refused.value, "code", 0) == 400


def test_managed_fields_are_not_for_the_client_to_apply() -> None:
    applied = config(a="1")
    applied["metadata"]["managedFields"] = [{"manager": "me", "operation": "Apply"}]
    with pytest.raises(PatchError, match=r"metadata\.managedFields must be nil"):
        apply(None, applied, "me")


def test_status_belongs_to_the_status_subresource() -> None:
    live = apply(None, service(type="LoadBalancer"), "me")
    intent = {**service(), "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}
    assert "status" not in apply(live, {**intent, "spec": {"type": "LoadBalancer"}}, "me")
    after = apply(live, intent, "lb", subresource="status")
    assert after["spec"] == live["spec"] and after["status"] == intent["status"]
    entry = next(e for e in after["metadata"]["managedFields"] if e["manager"] == "lb")
    assert entry["subresource"] == "status" and list(entry["fieldsV1"]) == ["f:status"]


def test_an_update_takes_what_it_changes_from_whoever_owned_it() -> None:
    live = apply(None, config(a="1", b="1"), "me")
    written = {**live, "data": {"a": "2", "b": "1", "c": "3"}}
    after = track_update(live, written, CONFIG_MAP, manager="editor", now=T1)
    assert owners(after) == {"me": {"f:data": {"f:b": {}}}, "editor": {"f:data": {"f:a": {}, "f:c": {}}}}


def test_an_update_that_changes_nothing_keeps_the_entries_as_they_are() -> None:
    live = track_update(None, config(a="1"), CONFIG_MAP, manager="me", now=T0)
    again = track_update(live, config(a="1"), CONFIG_MAP, manager="other", now=T1)
    assert again["metadata"]["managedFields"] is live["metadata"]["managedFields"]


def test_stripping_managed_fields_stops_tracking_until_the_next_apply() -> None:
    live = track_update(None, config(a="1"), CONFIG_MAP, manager="me", now=T0)
    written = config(a="2")
    written["metadata"]["managedFields"] = [{}]
    bare = track_update(live, written, CONFIG_MAP, manager="me", now=T1)
    assert "managedFields" not in bare["metadata"]
    assert "managedFields" not in track_update(bare, config(a="3"), CONFIG_MAP, manager="me", now=T2)["metadata"]


def test_a_client_may_hand_over_entries() -> None:
    live = track_update(None, config(a="1"), CONFIG_MAP, manager="old", now=T0)
    entries = [{**live["metadata"]["managedFields"][0], "manager": "new", "operation": "Apply"}]
    written = {**live, "metadata": {**live["metadata"], "managedFields": entries}}
    after = track_update(live, written, CONFIG_MAP, manager="kubectl", now=T1)
    assert list(owners(after)) == ["new"]
    nonsense = {**live, "metadata": {**live["metadata"], "managedFields": [{"operation": "Own"}]}}
    assert list(owners(track_update(live, nonsense, CONFIG_MAP, manager="kubectl", now=T1))) == ["old"]


def test_many_updaters_stay_bounded() -> None:
    live = track_update(None, config(), CONFIG_MAP, manager="m0", now=T0)
    for index in range(30):
        data = {**live.get("data", {}), f"k{index}": "v"}
        live = track_update(live, {**live, "data": data}, CONFIG_MAP, manager=f"m{index}", now=T1)
    assert len(live["metadata"]["managedFields"]) <= 11
    everything = {path[-1] for fields in owners(live).values() for path in members(fields) if len(path) == 2}
    assert everything == {f"f:k{index}" for index in range(30)}


DATA = st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"), max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "two"]), DATA), min_size=1, max_size=5)


@given(STEPS)
def test_after_forced_applies_the_last_intents_hold_and_repeating_the_last_changes_nothing(
    steps: list[tuple[str, dict[str, str]]],
) -> None:
    live: dict[str, Any] | None = None
    for manager, data in steps:
        before = copy.deepcopy(live)
        after = apply(live, config(**data), manager, force=True)
        assert live == before, "the argument was modified"
        live = after
    assert live is not None
    manager, data = steps[-1]
    assert data.items() <= live["data"].items()
    assert apply(live, config(**data), manager, now=T2) is live
    other = {d for m, last in steps[:-1] if m != manager for d in last}
    assert set(live["data"]) <= set(data) | other


SETS = st.recursive(
    st.just({}), lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", "."]), inner, max_size=3), max_leaves=8
).map(lambda trie: _normal(trie))


def _normal(trie: dict[str, Any]) -> dict[str, Any]:
    """Without marks on the root and with empty marks only, as the functions expect."""

    def node(value: dict[str, Any]) -> dict[str, Any]:
        children = {key: node(child) for key, child in value.items() if key != "."}
        return {**children, ".": {}} if "." in value and children else children

    return {key: child for key, child in node(trie).items() if key != "."}


@given(SETS, SETS)
def test_field_sets_behave_as_sets_of_paths(left: dict[str, Any], right: dict[str, Any]) -> None:
    a, b = set(members(left)), set(members(right))
    assert set(members(union(left, right))) == a | b
    assert set(members(difference(left, right))) == a - b
    assert set(members(intersection(left, right))) == a & b
