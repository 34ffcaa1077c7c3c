"""Order of birth, death and update."""

from typing import Any

import pytest
from tests.unit.controllers.conftest import make_pod

from pilotage.api.apps_v1 import StatefulSet
from pilotage.api.codec import convert
from pilotage.api.core_v1 import PersistentVolumeClaim, Pod
from pilotage.controllers.statefulset.claims import new_claims, owners
from pilotage.controllers.statefulset.core import Revisions, ordinal_of, plan

OLD, NEW = "db-old", "db-new"
ROLLING = Revisions(
    current=OLD,
    current_template={"spec": {"containers": [{"name": "main", "image": "v1"}]}},
    update=NEW,
    update_template={"spec": {"containers": [{"name": "main", "image": "v2"}]}},
)
STEADY = Revisions(
    current=NEW,
    current_template=ROLLING.update_template,
    update=NEW,
    update_template=ROLLING.update_template,
)


def statefulset(replicas: int, *, partition: int = 0, unavailable: Any = None, **spec: Any) -> StatefulSet:
    rolling: dict[str, Any] = {"partition": partition}
    if unavailable is not None:
        rolling["maxUnavailable"] = unavailable
    body = {"replicas": replicas, "serviceName": "db", "updateStrategy": {"rollingUpdate": rolling}, **spec}
    return convert(StatefulSet, {"metadata": {"name": "db", "namespace": "default", "uid": "u"}, "spec": body})


def member(number: int, revision: str = NEW, **wish: Any) -> Pod:
    return make_pod(f"db-{number}", labels={"controller-revision-hash": revision}, **{"ready_for_s": 5, **wish})


CASES = [
    pytest.param([], {}, [0], [], id="the first alone"),
    pytest.param([member(0, ready_for_s=None)], {}, [], [], id="nothing while the first is not ready"),
    pytest.param([member(0)], {}, [1], [], id="then the next"),
    pytest.param([member(0), member(2)], {}, [1], [], id="a gap is filled"),
    pytest.param([member(0, deleting=True), member(1)], {}, [], [], id="nothing while one is going"),
    pytest.param([member(0), member(1), member(2), member(3), member(4)], {}, [], ["db-4"], id="the top goes first"),
    pytest.param([member(0, ready_for_s=None), *map(member, (1, 2, 3))], {}, [], [], id="a broken one delays scaling"),
    pytest.param(
        [member(0, phase="Failed", ready_for_s=None), member(1)], {}, [], ["db-0"], id="a failed one is replaced"
    ),
    pytest.param([], {"podManagementPolicy": "Parallel"}, [0, 1, 2], [], id="all at once"),
    pytest.param(
        [*map(member, range(5))],
        {"podManagementPolicy": "Parallel"},
        [],
        ["db-4", "db-3"],
        id="all the surplus at once",
    ),
    pytest.param([], {"ordinals": {"start": 5}}, [5], [], id="another first number"),
    pytest.param([member(0), member(1, ready_for_s=2)], {"minReadySeconds": 4}, [], [], id="ready but not long enough"),
]


@pytest.mark.parametrize(("pods", "spec", "create", "delete"), CASES)
def test_scaling(pods: list[Pod], spec: Any, create: list[int], delete: list[str], now: Any) -> None:
    step = plan(statefulset(3, **spec), pods, STEADY, now)
    assert [creation.ordinal for creation in step.create] == create
    assert [pod.metadata.name for pod in step.delete] == delete


UPDATES = [
    pytest.param([member(n, OLD) for n in range(3)], {}, ["db-2"], id="the top first"),
    pytest.param([member(0, OLD), member(1, OLD), member(2, ready_for_s=None)], {}, [], id="waits for it to be ready"),
    pytest.param([member(0, OLD), member(1, OLD), member(2)], {}, ["db-1"], id="then the next"),
    pytest.param([member(0, OLD), member(1, OLD), member(2)], {"partition": 2}, [], id="stops at the partition"),
    pytest.param([member(n, OLD) for n in range(3)], {"unavailable": 2}, ["db-2", "db-1"], id="two at a time"),
    pytest.param(
        [member(0, OLD), member(1, OLD), member(2, OLD, ready_for_s=None)], {}, ["db-2"], id="a broken one now"
    ),
    pytest.param(
        [member(n, OLD) for n in range(3)], {"updateStrategy": {"type": "OnDelete"}}, [], id="only on deletion"
    ),
]


@pytest.mark.parametrize(("pods", "spec", "delete"), UPDATES)
def test_updating(pods: list[Pod], spec: Any, delete: list[str], now: Any) -> None:
    step = plan(statefulset(3, **spec), pods, ROLLING, now)
    assert step.create == ()
    assert [pod.metadata.name for pod in step.delete] == delete


def test_below_the_partition_a_pod_comes_back_old(now: Any) -> None:
    step = plan(statefulset(3, partition=1), [member(1), member(2)], ROLLING, now)
    (creation,) = step.create
    assert creation.document["spec"]["containers"][0]["image"] == "v1"
    assert creation.document["metadata"]["labels"]["controller-revision-hash"] == OLD


def test_identity(now: Any) -> None:
    document = plan(statefulset(1), [], STEADY, now).create[0].document
    assert document["metadata"]["name"] == document["spec"]["hostname"] == "db-0"
    assert document["spec"]["subdomain"] == "db"
    assert document["metadata"]["labels"] == {
        "statefulset.kubernetes.io/pod-name": "db-0",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": NEW,
    }
    assert document["metadata"]["ownerReferences"][0]["controller"] is True


def test_the_update_becomes_current_when_all_run_it(now: Any) -> None:
    status = plan(statefulset(2), [member(0), member(1)], ROLLING, now).status
    assert (status.current_revision, status.update_revision) == (NEW, NEW)
    assert (status.current_replicas, status.updated_replicas, status.ready_replicas) == (2, 2, 2)


@pytest.mark.parametrize(
    ("name", "number"), [("db-0", 0), ("db-12", 12), ("db-012", None), ("db-x", None), ("dbx-1", None)]
)
def test_ordinals(name: str, number: int | None) -> None:
    assert ordinal_of(statefulset(1), make_pod(name)) == number


def with_claims(**spec: Any) -> StatefulSet:
    template = {"metadata": {"name": "data", "labels": {"tier": "fast"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    return statefulset(2, volumeClaimTemplates=[template], selector={"matchLabels": {"app": "db"}}, **spec)


def test_a_claim_is_named_by_template_set_and_number(now: Any) -> None:
    made = with_claims()
    (claim,) = new_claims(made, 1)
    assert claim["metadata"]["name"] == "data-db-1"
    assert claim["metadata"]["labels"] == {"tier": "fast", "app": "db"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"]}
    assert "ownerReferences" not in claim["metadata"]
    document = plan(made, [], STEADY, now).create[0].document
    assert document["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}]


def test_a_claim_takes_the_place_of_a_volume_of_its_name(now: Any) -> None:
    stated = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    template = {"spec": {"containers": [], "volumes": stated}}
    revisions = Revisions(current=NEW, current_template=template, update=NEW, update_template=template)
    found = plan(with_claims(), [], revisions, now).create[0].document["spec"]["volumes"]
    assert [(item["name"], "emptyDir" in item) for item in found] == [("data", False), ("tmp", True)]


RETENTION = [
    pytest.param("Retain", "Retain", False, (), None, id="kept"),
    pytest.param("Delete", "Retain", False, (), ["StatefulSet"], id="goes with the set"),
    pytest.param("Delete", "Retain", False, ("StatefulSet",), None, id="says so already"),
    pytest.param("Retain", "Retain", False, ("StatefulSet",), [], id="no longer goes with the set"),
    pytest.param("Retain", "Delete", True, (), ["Pod"], id="goes with the pod that scaling removes"),
    pytest.param("Retain", "Delete", False, ("Pod",), [], id="stays when the pod is wanted again"),
    pytest.param("Delete", "Delete", True, ("StatefulSet",), ["Pod"], id="scaling comes first"),
    pytest.param("Retain", "Retain", False, ("ConfigMap",), None, id="strangers are none of its business"),
    pytest.param("Delete", "Retain", False, ("ConfigMap",), ["ConfigMap", "StatefulSet"], id="strangers stay"),
]


@pytest.mark.parametrize(("deleted", "scaled", "surplus", "present", "wanted"), RETENTION)
def test_retention(deleted: str, scaled: str, surplus: bool, present: Any, wanted: Any) -> None:
    made = with_claims(persistentVolumeClaimRetentionPolicy={"whenDeleted": deleted, "whenScaled": scaled})
    references = {
        "StatefulSet": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u"},
        "Pod": {"apiVersion": "v1", "kind": "Pod", "name": "db-1", "uid": "uid-db-1"},
        "ConfigMap": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"},
    }
    metadata = {"name": "data-db-1", "ownerReferences": [references[kind] for kind in present]}
    claim = convert(PersistentVolumeClaim, {"metadata": metadata})
    found = owners(made, claim, member(1), surplus=surplus)
    assert (None if found is None else [item["kind"] for item in found]) == wanted
