"""Where a pod goes, and why not."""

from typing import Any

import pytest

from pilotage.api.codec import convert
from pilotage.api.core_v1 import PersistentVolume
from pilotage.api.labels import parse_selector
from pilotage.scheduler.core.cycle import Placement, Unschedulable, schedule
from pilotage.scheduler.core.model import ClaimInfo
from pilotage.scheduler.core.queue import ClusterEvent

TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}


def term(app: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}


def required(kind: str, *terms: Any) -> dict[str, Any]:
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


REFUSALS = [
    pytest.param({"cpu": "5"}, {}, "Insufficient cpu", id="more cpu than the node has"),
    pytest.param({"cpu": "5", "memory": "9Gi"}, {}, None, id="both are named when both lack"),
    pytest.param({}, {"pods": "0"}, "Too many pods", id="no room for another pod"),
    pytest.param({}, {"unschedulable": True}, "node(s) were unschedulable", id="a cordoned node"),
    pytest.param({}, {"taints": [TAINT]}, "node(s) had untolerated taint(s)", id="an untolerated taint"),
    pytest.param(
        {"nodeSelector": {"disk": "ssd"}},
        {},
        "node(s) didn't match Pod's node affinity/selector",
        id="a node selector nobody matches",
    ),
    pytest.param(
        {"affinity": required("podAffinity", term("db"))},
        {},
        "node(s) didn't match pod affinity rules",
        id="affinity to a pod that is nowhere",
    ),
    pytest.param(
        {
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
            ]
        },
        {},
        "node(s) didn't match pod topology spread constraints (missing required label)",
        id="a spread key the node lacks",
    ),
]


@pytest.mark.parametrize(("wish", "offer", "reason"), REFUSALS)
def test_a_refusal_names_its_reason(
    wish: Any, offer: Any, reason: str | None, pod: Any, node: Any, cluster: Any
) -> None:
    verdict = schedule(pod(**wish), cluster(node("n1", **offer)))
    assert isinstance(verdict, Unschedulable)
    if reason is None:
        assert verdict.message == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."
    else:
        assert verdict.message == f"0/1 nodes are available: 1 {reason}."


def test_the_message_adds_up_reasons_over_nodes(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1", cpu="1"), node("n2", cpu="1"), node("n3", unschedulable=True))
    verdict = schedule(pod(cpu="2"), made)
    assert isinstance(verdict, Unschedulable)
    assert verdict.message == "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
    assert verdict.plugins == ("NodeUnschedulable", "NodeResourcesFit")
    assert ClusterEvent.POD_GONE in verdict.wakes


def test_without_nodes_only_a_new_node_helps(pod: Any, cluster: Any) -> None:
    verdict = schedule(pod(), cluster())
    assert isinstance(verdict, Unschedulable)
    assert verdict.message == "no nodes available to schedule pods"
    assert verdict.wakes == {ClusterEvent.NODE_ADDED}


def test_only_nodes_where_leaving_pods_would_help_are_resolvable(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("full", cpu="2"), node("small", cpu="1"), full=[pod("a", cpu="2")])
    verdict = schedule(pod(cpu="2"), made)
    assert isinstance(verdict, Unschedulable)
    assert verdict.resolvable_nodes == ("full",)


ACCEPTANCES = [
    pytest.param({"tolerations": [{"key": "dedicated", "operator": "Exists"}]}, {"taints": [TAINT]}, id="tolerated"),
    pytest.param(
        {"tolerations": [{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}]},
        {"taints": [TAINT]},
        id="tolerated by value",
    ),
    pytest.param({}, {"taints": [{**TAINT, "effect": "PreferNoSchedule"}]}, id="a soft taint only costs score"),
    pytest.param(
        {"tolerations": [{"operator": "Exists"}]}, {"unschedulable": True}, id="tolerating everything beats a cordon"
    ),
    pytest.param(
        {"labels": {"app": "db"}, "affinity": required("podAffinity", term("db"))},
        {},
        id="the first of a group that wants to be together",
    ),
    pytest.param({"cpu": "4", "memory": "8Gi"}, {}, id="exactly what is left"),
]


@pytest.mark.parametrize(("wish", "offer"), ACCEPTANCES)
def test_accepts(wish: Any, offer: Any, pod: Any, node: Any, cluster: Any) -> None:
    assert schedule(pod(**wish), cluster(node("n1", **offer))) == Placement(node_name="n1", feasible=1)


def test_required_anti_affinity_holds_in_both_directions(pod: Any, node: Any, cluster: Any) -> None:
    lonely = pod("lonely", labels={"app": "lonely"}, affinity=required("podAntiAffinity", term("web")))
    made = cluster(node("n1"), node("n2"), n1=[lonely])
    verdict = schedule(pod("web", labels={"app": "web"}), made)
    assert isinstance(verdict, Placement)
    assert verdict.node_name == "n2"
    made.place(pod("web", labels={"app": "web"}), "n2")
    second = schedule(pod("lonely-2", labels={"app": "lonely"}, affinity=lonely_affinity()), made)
    assert isinstance(second, Placement)
    assert second.node_name == "n1"


def lonely_affinity() -> dict[str, Any]:
    return required("podAntiAffinity", term("web"))


def test_affinity_follows_the_zone(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(
        node("n1", zone="a"), node("n2", zone="b"), node("n3", zone="b"), n2=[pod("db", labels={"app": "db"})]
    )
    wish = required("podAffinity", term("db", "topology.kubernetes.io/zone"))
    verdict = schedule(pod("web", affinity=wish, cpu="1"), made)
    assert isinstance(verdict, Placement)
    assert verdict.feasible == 2
    assert verdict.node_name == "n3"  # the emptier one of the zone


def test_host_ports_conflict_only_on_the_same_address(pod: Any, node: Any, cluster: Any) -> None:
    def with_port(name: str, ip: str) -> Any:
        port = {"containerPort": 80, "hostPort": 80, "hostIP": ip}
        return pod(name, containers=[{"name": "main", "ports": [port]}])

    made = cluster(node("n1"), n1=[with_port("a", "10.0.0.1")])
    assert isinstance(schedule(with_port("b", "10.0.0.2"), made), Placement)
    refused = schedule(with_port("c", "0.0.0.0"), made)
    assert isinstance(refused, Unschedulable)
    assert "didn't have free ports" in refused.message


@pytest.mark.parametrize(("minimum", "fits"), [(None, True), (3, False)])
def test_hard_spread_counts_domains(minimum: int | None, fits: bool, pod: Any, node: Any, cluster: Any) -> None:
    """Two zones with one pod each: a third fits anywhere unless a third zone is asked for."""
    placed = {f"n{zone}": [pod(f"p{zone}", labels={"app": "web"})] for zone in "ab"}
    made = cluster(node("na", zone="a"), node("nb", zone="b"), **placed)
    constraint = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
        **({"minDomains": minimum} if minimum else {}),
    }
    verdict = schedule(pod("new", labels={"app": "web"}, topologySpreadConstraints=[constraint]), made)
    assert isinstance(verdict, Placement) == fits


def test_hard_spread_prefers_nothing_over_skew(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("na", zone="a"), node("nb", zone="b", cpu="0"), na=[pod("p", labels={"app": "web"})])
    constraint = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    wish = pod("new", cpu="1", labels={"app": "web"}, topologySpreadConstraints=[constraint])
    verdict = schedule(wish, made)
    assert isinstance(verdict, Unschedulable)
    assert "1 node(s) didn't match pod topology spread constraints" in verdict.message


def test_pods_of_one_owner_spread_over_zones_then_hosts(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1", zone="a"), node("n2", zone="a"), node("n3", zone="b"))
    selector = parse_selector("app=web")
    order = []
    for number in range(3):
        info = pod(f"web-{number}", labels={"app": "web"}, owner=selector)
        verdict = schedule(info, made)
        assert isinstance(verdict, Placement)
        made.place(info, verdict.node_name)
        order.append(verdict.node_name)
    assert order == ["n1", "n3", "n2"]


def test_the_emptier_node_wins(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), node("n2"), n1=[pod("a", cpu="1", memory="1Gi")])
    verdict = schedule(pod(cpu="1"), made)
    assert isinstance(verdict, Placement)
    assert verdict.node_name == "n2"


def test_preferences_weigh_more_than_emptiness(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1", labels={"disk": "ssd"}), node("n2"), n1=[pod("a", cpu="1")])
    preferred = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
                }
            ]
        }
    }
    verdict = schedule(pod(cpu="1", affinity=preferred), made)
    assert isinstance(verdict, Placement)
    assert verdict.node_name == "n1"


def test_preferred_pod_affinity_pulls_and_anti_affinity_pushes(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), node("n2"), n1=[pod("db", labels={"app": "db"})])

    def preferring(kind: str) -> dict[str, Any]:
        item = {"weight": 100, "podAffinityTerm": term("db")}
        return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [item]}}

    near = schedule(pod("near", affinity=preferring("podAffinity")), made)
    far = schedule(pod("far", affinity=preferring("podAntiAffinity")), made)
    assert isinstance(near, Placement) and near.node_name == "n1"
    assert isinstance(far, Placement) and far.node_name == "n2"


def test_soft_taints_are_avoided(pod: Any, node: Any, cluster: Any) -> None:
    soft = {"key": "slow", "effect": "PreferNoSchedule"}
    made = cluster(node("n1", taints=[soft]), node("n2"), n2=[pod("a", cpu="2")])
    verdict = schedule(pod(cpu="1"), made)
    assert isinstance(verdict, Placement)
    assert verdict.node_name == "n2"


def test_namespace_selectors_widen_affinity(pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), node("n2"), n1=[pod("db", labels={"app": "db"}, namespace="data")])
    made.namespaces |= {"data": {"team": "data"}, "default": {}}
    own = pod("own", affinity=required("podAffinity", term("db")))
    assert isinstance(schedule(own, made), Unschedulable)
    wide = {**term("db"), "namespaceSelector": {"matchLabels": {"team": "data"}}}
    verdict = schedule(pod("wide", affinity=required("podAffinity", wide)), made)
    assert isinstance(verdict, Placement)
    assert verdict.node_name == "n1"


KEYS = [
    pytest.param("podAffinity", {"matchLabelKeys": ["hash"]}, "n2", id="only with pods of its own revision"),
    pytest.param("podAntiAffinity", {"matchLabelKeys": ["hash"]}, "n1", id="away from its own revision only"),
    pytest.param("podAntiAffinity", {"mismatchLabelKeys": ["hash"]}, "n2", id="away from other revisions only"),
    pytest.param("podAffinity", {"matchLabelKeys": ["absent", "hash"]}, "n2", id="keys it lacks are ignored"),
]


@pytest.mark.parametrize(("kind", "keys", "expected"), KEYS)
def test_label_keys_narrow_affinity(kind: str, keys: Any, expected: str, pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(
        node("n1"),
        node("n2"),
        n1=[pod("old", labels={"app": "web", "hash": "1"})],
        n2=[pod("new", labels={"app": "web", "hash": "2"})],
    )
    wish = pod("next", labels={"app": "web", "hash": "2"}, affinity=required(kind, {**term("web"), **keys}))
    verdict = schedule(wish, made)
    assert isinstance(verdict, Placement)
    assert (verdict.node_name, verdict.feasible) == (expected, 1)


DOMAINS = [
    pytest.param({}, {"nodeSelector": {"disk": "ssd"}}, True, id="nodes out of its reach do not count"),
    pytest.param({"nodeAffinityPolicy": "Ignore"}, {"nodeSelector": {"disk": "ssd"}}, False, id="unless told to"),
    pytest.param({}, {}, False, id="tainted nodes count"),
    pytest.param({"nodeTaintsPolicy": "Honor"}, {}, True, id="unless told not to"),
    pytest.param({"matchLabelKeys": ["hash"]}, {"labels": {"app": "web", "hash": "2"}}, True, id="own revision only"),
]


@pytest.mark.parametrize(("policy", "wish", "fits"), DOMAINS)
def test_spread_policies(policy: Any, wish: Any, fits: bool, pod: Any, node: Any, cluster: Any) -> None:
    """Two of its kind are on n1; the empty n2 is tainted and has no ssd: does it hold a third one back from n1?"""
    placed = [pod(f"p{number}", labels={"app": "web", "hash": "1"}) for number in range(2)]
    made = cluster(node("n1", labels={"disk": "ssd"}), node("n2", taints=[TAINT]), n1=placed)
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
        **policy,
    }
    info = pod("new", **{"labels": {"app": "web", "hash": "1"}, **wish}, topologySpreadConstraints=[constraint])
    assert isinstance(schedule(info, made), Placement) is fits


UNBOUND, BOUND = ClaimInfo(), ClaimInfo(volume="pv")
CLAIMS = [
    pytest.param({}, 'persistentvolumeclaim "data" not found', id="absent"),
    pytest.param({("other", "data"): BOUND}, 'persistentvolumeclaim "data" not found', id="in another namespace"),
    pytest.param(
        {("default", "data"): ClaimInfo()}, "pod has unbound immediate PersistentVolumeClaims", id="not bound"
    ),
    pytest.param({("default", "data"): BOUND}, "", id="bound"),
]


@pytest.mark.parametrize(("claims", "reason"), CLAIMS)
def test_claims_come_before_nodes(claims: Any, reason: str, pod: Any, node: Any, cluster: Any) -> None:
    made = cluster(node("n1"), node("n2"))
    made.claims.update(claims)
    made.volumes["pv"] = convert(PersistentVolume, {"metadata": {"name": "pv"}})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    verdict = schedule(pod(volumes=[volume]), made)
    if reason:
        assert isinstance(verdict, Unschedulable)
        assert verdict.message == f"0/2 nodes are available: {reason}."
        assert verdict.wakes == {ClusterEvent.CLAIM_CHANGED}
    else:
        assert isinstance(verdict, Placement)
