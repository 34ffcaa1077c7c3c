"""Accounts, the root CA, namespaces' conditions, daemons, shared rules."""

from typing import Any

import pytest

from pilotage.api.apps_v1 import DaemonSet, ReplicaSetStatus
from pilotage.api.batch_v1 import JobStatus, UncountedTerminatedPods
from pilotage.api.codec import convert
from pilotage.api.core_v1 import ConfigMap, Namespace, Node, Pod, Service
from pilotage.api.labels import parse_selector
from pilotage.api.meta_v1 import UID, Object
from pilotage.api.ownership import claim
from pilotage.api.services import Port, ports
from pilotage.api.workloads import scaled, status_patch, template_hash
from pilotage.controllers.daemonset.core import new_pod, node_of
from pilotage.controllers.daemonset.core import plan as daemon_plan
from pilotage.controllers.endpoints.core import ADDRESSES_MAX, subsets
from pilotage.controllers.namespace.core import Remains, conditions, is_ours
from pilotage.controllers.rootca.core import correction, is_due
from pilotage.controllers.serviceaccount.core import missing


def namespace(*, deleting: bool = False, finalizers: tuple[str, ...] = ("kubernetes",)) -> Namespace:
    meta = {"name": "shop"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {})
    return convert(Namespace, {"metadata": meta, "spec": {"finalizers": list(finalizers)}})


def test_accounts_only_where_they_can_be_created() -> None:
    assert missing(namespace(), []) == ("default",)
    assert missing(namespace(deleting=True), []) == ()
    assert missing(None, []) == ()


def test_the_root_ca_holds_exactly_the_certificate() -> None:
    existing = convert(ConfigMap, {"metadata": {"name": "x"}, "data": {"ca.crt": "old", "extra": "1"}})
    assert is_due(namespace(), None, "ca")
    assert is_due(namespace(), existing, "ca")
    assert not is_due(namespace(deleting=True), None, "ca")
    assert correction(existing, "ca") == {"data": {"ca.crt": "ca", "extra": None}}


def test_a_namespace_names_what_holds_it(now: Any) -> None:
    assert is_ours(namespace(deleting=True))
    assert not is_ours(namespace())
    assert not is_ours(namespace(deleting=True, finalizers=("other",)))
    remains = [Remains(resource="pods", count=2, finalizers=("a/b", "a/b"))]
    found = {item.type: item for item in conditions(namespace(deleting=True), remains, now)}
    assert found["NamespaceContentRemaining"].status == "True"
    assert found["NamespaceContentRemaining"].message == "Some resources are remaining: pods has 2 resource instances"
    assert found["NamespaceFinalizersRemaining"].message.endswith("a/b in 2 resource instances")
    assert found["NamespaceDeletionContentFailure"].status == "False"


def daemonset(**template: Any) -> DaemonSet:
    metadata = {"name": "log", "namespace": "default", "uid": "u"}
    spec = {"containers": [{"name": "main"}], **template}
    return convert(DaemonSet, {"metadata": metadata, "spec": {"template": {"spec": spec}}})


def node(name: str, **spec: Any) -> Node:
    return convert(Node, {"metadata": {"name": name, "labels": {"disk": name}}, "spec": spec})


def test_a_daemon_pod_says_its_node_and_keeps_the_templates_affinity() -> None:
    expression = {"key": "disk", "operator": "Exists"}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]
            }
        }
    }
    document = new_pod(daemonset(affinity=affinity), "n1", "log-abc")
    pod = convert(Pod, document)
    assert node_of(pod) == "n1"
    found = pod.spec.affinity.node_affinity
    assert found is not None and found.required_during_scheduling_ignored_during_execution is not None
    (term,) = found.required_during_scheduling_ignored_during_execution.node_selector_terms
    assert (term.match_expressions[0].key, term.match_fields[0].values) == ("disk", ("n1",))
    assert document["metadata"]["labels"]["controller-revision-hash"] == "abc"


def test_daemons_stay_off_tainted_nodes_but_stay_on_cordoned_ones(now: Any) -> None:
    nodes = [
        node("plain"),
        node(
            "cordoned", unschedulable=True, taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
        ),
        node("tainted", taints=[{"key": "x", "effect": "NoSchedule"}]),
    ]
    assert daemon_plan(daemonset(), [], nodes, "log-abc", now).create == ("cordoned", "plain")
    assert daemon_plan(daemonset(nodeSelector={"disk": "plain"}), [], nodes, "log-abc", now).create == ("plain",)


def test_a_second_daemon_of_a_node_goes(now: Any, pod: Any) -> None:
    pods = [pod("old", node="n1", age_s=100), pod("new", node="n1", age_s=10)]
    step = daemon_plan(daemonset(), pods, [node("n1")], "log-abc", now)
    assert [item.metadata.name for item in step.delete] == ["new"]
    assert step.create == ()


@pytest.mark.parametrize(
    ("labels", "owner", "place"),
    [
        ({"app": "web"}, "web", "mine"),
        ({"app": "other"}, "web", "release"),
        ({"app": "web"}, "", "adopt"),
        ({"app": "other"}, "", None),
        ({"app": "web"}, "stranger", None),
    ],
)
def test_claims(labels: Any, owner: str, place: str | None, pod: Any) -> None:
    verdict = claim(
        convert(Object, {"metadata": {"name": "web", "uid": "uid-web"}}),
        parse_selector("app=web"),
        [pod("p", labels=labels, owner=owner)],
    )
    found = [name for name in ("mine", "adopt", "release") if getattr(verdict, name)]
    assert found == ([place] if place else [])


def test_an_empty_selector_lets_go_of_nothing(pod: Any) -> None:
    owner = convert(Object, {"metadata": {"name": "web", "uid": "uid-web"}})
    verdict = claim(owner, None, [pod("p", owner="web"), pod("q")])
    assert [item.metadata.name for item in verdict.mine] == ["p"]
    assert verdict.adopt == verdict.release == ()


@pytest.mark.parametrize(
    ("value", "total", "up", "down"),
    [(3, 10, 3, 3), ("25%", 10, 3, 2), ("0%", 10, 0, 0), ("100%", 7, 7, 7), ("x", 5, 0, 0)],
)
def test_numbers_and_percentages(value: Any, total: int, up: int, down: int) -> None:
    assert scaled(value, total, round_up=True) == up
    assert scaled(value, total, round_up=False) == down


def test_a_status_patch_names_what_it_clears() -> None:
    assert status_patch(ReplicaSetStatus(replicas=3), ReplicaSetStatus()) == {"replicas": 0}
    old = JobStatus(uncounted_terminated_pods=UncountedTerminatedPods(succeeded=(UID("a"),)), start_time="x")
    assert status_patch(old, JobStatus()) == {"startTime": None, "uncountedTerminatedPods": {"succeeded": None}}
    assert status_patch(old, old) == {}


def test_hashes_depend_on_content_not_on_order() -> None:
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2}) != template_hash({"a": 2}, 1)


def service(*wanted: Any, **spec: Any) -> Service:
    return convert(
        Service, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": list(wanted), **spec}}
    )


def test_named_ports_are_looked_up_in_each_pod(pod: Any) -> None:
    container = {"name": "main", "ports": [{"name": "web", "containerPort": 8443}]}
    svc = service({"name": "https", "port": 443, "targetPort": "web"}, {"name": "raw", "port": 99})
    assert ports(svc, pod(containers=[container])) == (Port("https", "TCP", 8443), Port("raw", "TCP", 99))
    assert ports(svc, pod()) == (Port("raw", "TCP", 99),)


def test_endpoints_are_cut_at_a_thousand_ready_ones_first(pod: Any) -> None:
    many = [pod(f"r{n:04}", ip=f"10.0.{n // 250}.{n % 250}", ready_for_s=1) for n in range(ADDRESSES_MAX - 1)]
    waiting = [pod(f"w{n}", ip=f"10.9.0.{n}") for n in range(3)]
    (subset,), excess = subsets(service({"port": 80}), [*waiting, *many])
    assert excess
    assert (len(subset.addresses), len(subset.not_ready_addresses)) == (ADDRESSES_MAX - 1, 1)
