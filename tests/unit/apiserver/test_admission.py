"""Each plugin of admission, on documents in a dictionary."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest

from pilotage.api.catalogue import BUILTIN
from pilotage.api.status import ApiError
from pilotage.apiserver.admission import Admission, Operation, QuotaLedger, ServiceAddresses
from pilotage.apiserver.authentication import LOOPBACK, UserInfo
from pilotage.apiserver.authorization import Authorizer
from pilotage.apiserver.documents import DictDocuments, Document

NODE = UserInfo(name="system:node:n1", groups=("system:nodes", "system:authenticated"))


def named(name: str, namespace: str = "", **metadata: Any) -> Document:
    return {
        "metadata": {"name": name, "uid": f"u-{name}", **({"namespace": namespace} if namespace else {}), **metadata}
    }


def pod(*containers: Document, **spec: Any) -> Document:
    return {**named("web", "default"), "spec": {"containers": list(containers) or [{"name": "c"}], **spec}}


class World:
    """Admission over documents that tests may change."""

    def __init__(self) -> None:
        self.documents = DictDocuments()
        self.put("namespaces", {**named("default"), "status": {"phase": "Active"}})
        self.put("serviceaccounts", named("default", "default"))
        self.admission = Admission(
            self.documents,
            Authorizer(self.documents),
            ServiceAddresses(("10.96.0.0/16",), documents=self.documents),
            QuotaLedger(self.documents),
        )

    def put(self, plural: str, document: Document, group: str = "") -> Document:
        return self.documents.put(group, plural, document)

    def review(
        self,
        kind: str,
        document: Document | None,
        *,
        verb: Literal["create", "update", "delete"] = "create",
        old: Document | None = None,
        user: UserInfo = LOOPBACK,
        subresource: str = "",
    ) -> Document:
        subject = document or old
        assert subject is not None
        operation = Operation(
            verb=verb,
            resource=next(r for r in BUILTIN if r.kind == kind),
            namespace=subject["metadata"].get("namespace", ""),
            name=subject["metadata"]["name"],
            subresource=subresource,
            user=user,
            document=document,
            old=old,
        )
        before = copy.deepcopy(old)
        self.admission.review(operation)
        reserved = self.admission.reserve(operation)
        if reserved is not None:
            reserved()
        assert old == before, "the stored document was modified"
        return subject

    def refusal(self, *arguments: Any, **options: Any) -> str:
        with pytest.raises(ApiError) as refused:
            self.review(*arguments, **options)
        return f"{refused.value.code} {refused.value}"


def test_objects_need_a_namespace_that_exists_and_stays() -> None:
    world = World()
    assert world.refusal("ConfigMap", named("a", "nowhere")) == '404 namespaces "nowhere" not found'
    world.put("namespaces", {**named("going"), "status": {"phase": "Terminating"}})
    assert world.refusal("ConfigMap", named("a", "going")) == (
        '403 configmaps "a" is forbidden: unable to create new content in namespace going because it is being '
        "terminated"
    )
    world.review("ConfigMap", named("a", "going"), verb="update", old=named("a", "going"))


def test_the_systems_namespaces_cannot_be_deleted() -> None:
    world = World()
    assert world.refusal("Namespace", None, verb="delete", old=named("kube-system")) == (
        '403 namespaces "kube-system" is forbidden: this namespace may not be deleted'
    )
    world.review("Namespace", None, verb="delete", old=named("mine"))


def test_a_pod_gets_its_account_and_the_token_where_clients_look() -> None:
    made = World().review("Pod", pod({"name": "a"}, {"name": "b"}))
    spec = made["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-") and len(volume["name"]) == 21
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    mount = {"name": volume["name"], "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    assert [container["volumeMounts"] for container in spec["containers"]] == [[mount], [mount]]


@pytest.mark.parametrize(
    ("account", "spec", "mounted"),
    [({}, {}, True), ({"automountServiceAccountToken": False}, {}, False),
     ({"automountServiceAccountToken": False}, {"automountServiceAccountToken": True}, True),
     ({}, {"automountServiceAccountToken": False}, False)],
)  # fmt: skip
def test_the_pod_decides_over_the_account_whether_a_token_is_mounted(
    account: Document, spec: Document, mounted: bool
) -> None:
    world = World()
    world.put("serviceaccounts", {**named("default", "default"), **account})
    assert ("volumes" in world.review("Pod", pod(**spec))["spec"]) is mounted


def test_an_account_that_does_not_exist() -> None:
    assert World().refusal("Pod", pod(serviceAccountName="ghost")) == (
        '403 pods "web" is forbidden: error looking up service account default/ghost: serviceaccount "ghost" not found'
    )


def test_tolerations_of_a_nodes_trouble() -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    tolerations = World().review("Pod", pod(tolerations=[own]))["spec"]["tolerations"]
    assert [(item["key"], item["tolerationSeconds"]) for item in tolerations] == [
        ("node.kubernetes.io/not-ready", 5),
        ("node.kubernetes.io/unreachable", 300),
    ]
    everything = [{"operator": "Exists"}]
    assert World().review("Pod", pod(tolerations=everything))["spec"]["tolerations"] == everything


def test_priorities() -> None:
    world = World()
    assert world.review("Pod", pod())["spec"]["priority"] == 0
    assert world.review("Pod", pod(priorityClassName="system-node-critical"))["spec"]["priority"] == 2000001000
    assert "no PriorityClass with name high was found" in world.refusal("Pod", pod(priorityClassName="high"))
    high = {**named("high"), "value": 100, "globalDefault": True, "preemptionPolicy": "Never"}
    world.put("priorityclasses", high, group="scheduling.k8s.io")
    spec = world.review("Pod", pod())["spec"]
    assert (spec["priority"], spec["priorityClassName"], spec["preemptionPolicy"]) == (100, "high", "Never")
    assert "must not be provided in pod spec" in world.refusal("Pod", pod(priority=7))


def ingress_class(name: str, when: str, default: str = "true") -> Document:
    annotations = {"ingressclass.kubernetes.io/is-default-class": default}
    return named(name, creationTimestamp=when, annotations=annotations)


def test_the_newest_default_ingress_class() -> None:
    world = World()
    ingress = {**named("i", "default"), "spec": {}}
    assert "ingressClassName" not in world.review("Ingress", copy.deepcopy(ingress))["spec"]
    for name, when in (("b", "2026-01-02T00:00:00Z"), ("a", "2026-01-02T00:00:00Z"), ("c", "2026-01-01T00:00:00Z")):
        world.put("ingressclasses", ingress_class(name, when), group="networking.k8s.io")
    world.put("ingressclasses", ingress_class("z", "2027-01-01T00:00:00Z", "false"), group="networking.k8s.io")
    assert world.review("Ingress", copy.deepcopy(ingress))["spec"]["ingressClassName"] == "a"
    annotated = {**named("i", "default", annotations={"kubernetes.io/ingress.class": "x"}), "spec": {}}
    assert "ingressClassName" not in world.review("Ingress", annotated)["spec"]


def test_the_default_storage_class() -> None:
    world = World()
    claim = {**named("c", "default"), "spec": {}}
    assert "storageClassName" not in world.review("PersistentVolumeClaim", copy.deepcopy(claim))["spec"]
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    world.put("storageclasses", named("fast", annotations=annotations), group="storage.k8s.io")
    world.put("storageclasses", named("a"), group="storage.k8s.io")
    assert world.review("PersistentVolumeClaim", copy.deepcopy(claim))["spec"]["storageClassName"] == "fast"
    none = {**claim, "spec": {"storageClassName": ""}}  # which means: no class at all
    assert world.review("PersistentVolumeClaim", none)["spec"]["storageClassName"] == ""


def test_limit_ranges_fill_in_and_bound() -> None:
    world = World()
    limit = {
        "type": "Container",
        "default": {"cpu": "500m"},
        "defaultRequest": {"cpu": "100m"},
        "max": {"cpu": "1"},
        "min": {"cpu": "50m"},
    }
    world.put("limitranges", {**named("l", "default"), "spec": {"limits": [limit]}})
    (container,) = world.review("Pod", pod())["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    greedy = {"name": "c", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "10m"}}}
    assert world.refusal("Pod", pod(greedy)) == (
        '403 pods "web" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, '
        "maximum cpu usage per Container is 1, but limit is 2]"
    )


def test_quotas_count_what_the_namespace_holds() -> None:
    world = World()
    hard = {"pods": "2", "requests.cpu": "1", "count/configmaps": "1"}
    world.put("resourcequotas", {**named("q", "default"), "spec": {"hard": hard}})

    def asking(cpu: str) -> Document:
        return pod({"name": "c", "resources": {"requests": {"cpu": cpu}}})

    world.put("pods", {**asking("700m"), **named("first", "default"), "status": {"phase": "Running"}})
    world.put("pods", {**asking("9"), **named("done", "default"), "status": {"phase": "Succeeded"}})
    world.review("Pod", asking("300m"))
    assert world.refusal("Pod", asking("400m")) == (
        '403 pods "web" is forbidden: exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=700m, '
        "limited: requests.cpu=1"
    )
    assert "must specify requests.cpu for: c" in world.refusal("Pod", pod())
    world.review("ConfigMap", named("one", "default"))
    world.put("configmaps", named("one", "default"))
    assert "exceeded quota: q, requested: count/configmaps=1" in world.refusal("ConfigMap", named("two", "default"))


@pytest.mark.parametrize(
    ("kind", "verb", "old", "new", "subresource", "text"),
    [
        ("Node", "update", named("n2"), named("n2"), "", 'node "n1" is not allowed to modify node "n2"'),
        ("Node", "create", None, named("n2"), "", 'node "n1" is not allowed to modify node "n2"'),
        ("Node", "delete", named("n1"), None, "", 'node "n1" cannot delete itself'),
        ("Pod", "update", pod(nodeName="n2"), pod(nodeName="n2"), "status", "can only update pod status for pods"),
        ("Pod", "update", pod(nodeName="n1"), pod(nodeName="n1"), "", "may only change the status of pods"),
        ("Pod", "delete", pod(nodeName="n2"), None, "", "can only delete pods with spec.nodeName set to itself"),
        ("Pod", "create", None, pod(nodeName="n1"), "", "can only create mirror pods"),
    ],
)
def test_a_node_touches_only_its_own(
    kind: str,
    verb: Literal["create", "update", "delete"],
    old: Document | None,
    new: Document | None,
    subresource: str,
    text: str,
) -> None:
    assert text in World().refusal(kind, new, verb=verb, old=old, user=NODE, subresource=subresource)


def test_a_node_reports_on_itself_and_its_pods() -> None:
    world = World()
    world.review("Node", named("n1"), user=NODE)
    world.review("Pod", pod(nodeName="n1"), verb="update", old=pod(nodeName="n1"), user=NODE, subresource="status")
    world.review("Pod", None, verb="delete", old=pod(nodeName="n1"), user=NODE)
    tainted = {**named("n1"), "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    text = world.refusal("Node", named("n1"), verb="update", old=tainted, user=NODE)
    assert "not allowed to modify taints" in text


def test_nobody_writes_a_role_beyond_themselves() -> None:
    world = World()
    alice = UserInfo(name="alice", groups=("system:authenticated",))
    role = {**named("r", "default"), "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}
    assert "attempting to grant RBAC permissions" in world.refusal("Role", role, user=alice)
    relabelled = {**role, "metadata": {**role["metadata"], "labels": {"a": "b"}}}
    world.review("Role", relabelled, verb="update", old=role, user=alice)
