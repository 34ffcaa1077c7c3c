"""Roles, nodes, escalation and reviews, on the roles every cluster starts with."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from pilotage.api.catalogue import lookup
from pilotage.api.schema_conform import conform
from pilotage.api.schema_defaults import default
from pilotage.api.schema_validation import validate
from pilotage.api.status import ApiError
from pilotage.apiserver.authentication import UserInfo
from pilotage.apiserver.authorization import Authorizer, bootstrap_objects, check_escalation, reconciled
from pilotage.apiserver.authorization.rbac import GROUP
from pilotage.apiserver.authorization.reviews import review_access, review_rules
from pilotage.apiserver.authorization.rules import Rule, covered
from pilotage.apiserver.core.routes import Route, route
from pilotage.apiserver.documents import DictDocuments, Document

_METHODS = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name=name, groups=(*groups, "system:authenticated"))


def asked(verb: str, path: str) -> Route:
    """A request such as `get /api/v1/namespaces/default/pods/web`."""
    method = "DELETE" if verb.startswith("delete") else _METHODS.get(verb, "GET")
    parsed = route(method, path, watch=verb == "watch")
    return parsed if parsed.verb == verb else dataclasses.replace(parsed, verb=verb)


class World:
    """An authoriser over the bootstrap objects and what a test adds."""

    def __init__(self) -> None:
        self.documents = DictDocuments()
        for plural, document in bootstrap_objects():
            self.documents.put(GROUP, plural, copy.deepcopy(document))
        self.authorizer = Authorizer(self.documents)

    def put(self, plural: str, document: Document, group: str = GROUP) -> None:
        metadata = document["metadata"]
        previous = self.documents.get(group, plural, metadata.get("namespace", ""), metadata["name"])
        previous = copy.deepcopy(previous)
        self.documents.put(group, plural, document)
        self.authorizer.observe(group, plural, previous, document)

    def bind(self, name: str, role: str, subject: dict[str, str], namespace: str = "") -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        reference = {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}
        plural = "rolebindings" if namespace else "clusterrolebindings"
        self.put(plural, {"metadata": metadata, "subjects": [subject], "roleRef": reference})

    def may(self, who: UserInfo, verb: str, path: str) -> bool:
        return self.authorizer.allows(who, asked(verb, path))


ALICE = user("alice")
AS_ALICE = {"kind": "User", "name": "alice"}


@pytest.mark.parametrize(
    ("who", "verb", "path", "allowed"),
    [
        (user("root", "system:masters"), "delete", "/api/v1/nodes/n1", True),
        (ALICE, "get", "/api/v1/namespaces/default/pods/web", False),
        (ALICE, "get", "/apis", True),
        (ALICE, "get", "/openapi/v3", True),
        (ALICE, "get", "/metrics", False),
        (ALICE, "create", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", True),
        (UserInfo(name="system:anonymous", groups=("system:unauthenticated",)), "get", "/readyz", True),
        (UserInfo(name="system:anonymous", groups=("system:unauthenticated",)), "get", "/api", False),
        (user("system:kube-scheduler"), "create", "/api/v1/namespaces/default/pods/web/binding", True),
        (user("system:kube-scheduler"), "create", "/api/v1/namespaces/default/pods", False),
        (user("system:kube-scheduler"), "list", "/api/v1/secrets", False),
        (user("system:kube-controller-manager"), "create", "/apis/apps/v1/namespaces/default/replicasets", True),
        (user("system:kube-controller-manager"), "create", f"/apis/{GROUP}/v1/clusterrolebindings", False),
        (user("system:kube-proxy"), "watch", "/apis/discovery.k8s.io/v1/endpointslices", True),
        (user("system:kube-proxy"), "get", "/api/v1/namespaces/default/secrets/x", False),
        (user("system:kube-proxy"), "create", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", True),
        (user("system:kube-proxy"), "create", "/apis/coordination.k8s.io/v1/namespaces/default/leases", False),
        (
            user("system:pilotage:dns"),
            "create",
            "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices",
            True,
        ),
        (user("system:pilotage:dns"), "create", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", False),
        (user("system:pilotage:external-dns"), "watch", "/api/v1/services", True),
        (user("system:pilotage:external-dns"), "get", "/api/v1/namespaces/a/services/b", False),
        (user("system:pilotage:external-dns"), "list", "/api/v1/secrets", False),
        (user("system:pilotage:gateway"), "watch", "/api/v1/secrets", True),
        (user("system:pilotage:gateway"), "patch", "/apis/networking.k8s.io/v1/namespaces/a/ingresses/b/status", True),
        (user("system:pilotage:gateway"), "patch", "/apis/networking.k8s.io/v1/namespaces/a/ingresses/b", False),
        (user("system:pilotage:loadbalancer"), "patch", "/api/v1/namespaces/a/services/b/status", True),
        (user("system:pilotage:loadbalancer"), "get", "/api/v1/namespaces/a/secrets/b", False),
    ],
    ids=lambda value: value.name if isinstance(value, UserInfo) else str(value),
)
def test_what_everybody_may_at_the_start(who: UserInfo, verb: str, path: str, allowed: bool) -> None:
    assert World().may(who, verb, path) is allowed


def test_a_binding_in_a_namespace_reaches_no_further_and_takes_effect_at_once() -> None:
    world = World()
    pods = "/api/v1/namespaces/{}/pods"
    assert not world.may(ALICE, "list", pods.format("dev"))
    world.bind("b", "view", AS_ALICE, namespace="dev")
    assert world.may(ALICE, "list", pods.format("dev"))
    assert not world.may(ALICE, "list", pods.format("prod"))
    assert not world.may(ALICE, "list", "/api/v1/pods")
    assert not world.may(ALICE, "create", pods.format("dev"))
    assert not world.may(ALICE, "get", "/api/v1/namespaces/dev/secrets/x")


def test_service_accounts_are_subjects() -> None:
    world = World()
    world.bind("b", "edit", {"kind": "ServiceAccount", "name": "robot", "namespace": "dev"}, namespace="dev")
    robot = user("system:serviceaccount:dev:robot")
    assert world.may(robot, "get", "/api/v1/namespaces/dev/secrets/x")
    assert world.may(robot, "create", "/api/v1/namespaces/dev/pods/web/exec")


def test_resource_names_and_star_subresources() -> None:
    world = World()
    rules = [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
        {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*/scale"]},
    ]
    world.put("clusterroles", {"metadata": {"name": "narrow"}, "rules": rules})
    world.bind("b", "narrow", AS_ALICE)
    assert world.may(ALICE, "get", "/api/v1/namespaces/a/configmaps/one")
    assert not world.may(ALICE, "get", "/api/v1/namespaces/a/configmaps/two")
    assert not world.may(ALICE, "list", "/api/v1/namespaces/a/configmaps")
    assert world.may(ALICE, "get", "/apis/apps/v1/namespaces/a/deployments/x/scale")
    assert not world.may(ALICE, "get", "/apis/apps/v1/namespaces/a/deployments/x")


def test_a_role_that_is_labelled_joins_the_aggregate() -> None:
    world = World()
    world.bind("b", "view", AS_ALICE)
    path = "/apis/traefik.io/v1alpha1/namespaces/a/ingressroutes"
    assert not world.may(ALICE, "list", path)
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    rules = [{"verbs": ["list"], "apiGroups": ["traefik.io"], "resources": ["ingressroutes"]}]
    world.put("clusterroles", {"metadata": {"name": "extra", "labels": labels}, "rules": rules})
    assert world.may(ALICE, "list", path)


@pytest.mark.parametrize(
    ("verb", "path", "message"),
    [
        (
            "list",
            "/api/v1/namespaces/y/pods",
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "y"',
        ),
        (
            "get",
            "/apis/apps/v1/namespaces/y/deployments/web/scale",
            'deployments.apps "web" is forbidden: User "alice" cannot get resource "deployments/scale" '
            'in API group "apps" in the namespace "y"',
        ),
        (
            "get",
            "/api/v1/nodes/n1",
            'nodes "n1" is forbidden: User "alice" cannot get resource "nodes" in API group "" at the cluster scope',
        ),
        ("get", "/metrics", 'forbidden: User "alice" cannot get path "/metrics"'),
    ],
)
def test_the_words_of_a_refusal(verb: str, path: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        World().authorizer.authorize(ALICE, asked(verb, path))
    assert str(refused.value) == message and refused.value.code == 403


NODE = user("system:node:n1", "system:nodes")


def pod(name: str, node: str, **spec: Any) -> Document:
    metadata = {"name": name, "namespace": "default", "uid": f"u-{name}"}
    return {"metadata": metadata, "spec": {"nodeName": node, "serviceAccountName": "robot", **spec}}


def test_a_node_reads_only_what_its_pods_name() -> None:
    world = World()
    secret = "/api/v1/namespaces/default/secrets/{}"
    volumes = [{"name": "v", "secret": {"secretName": "mine"}}]
    assert not world.may(NODE, "get", secret.format("mine"))
    world.put("pods", pod("web", "n1", volumes=volumes), group="")
    world.put("pods", pod("db", "n2", volumes=[{"name": "v", "secret": {"secretName": "theirs"}}]), group="")
    assert world.may(NODE, "get", secret.format("mine"))
    assert not world.may(NODE, "get", secret.format("theirs"))
    assert not world.may(NODE, "list", "/api/v1/namespaces/default/secrets")
    assert not world.may(NODE, "update", secret.format("mine"))
    world.authorizer.observe("", "pods", pod("web", "n1", volumes=volumes), None)
    assert not world.may(NODE, "get", secret.format("mine"))


def test_every_way_to_name_a_secret_or_config_map_counts() -> None:
    world = World()
    container = {
        "env": [{"valueFrom": {"secretKeyRef": {"name": "a"}}}, {"valueFrom": {"configMapKeyRef": {"name": "c1"}}}],
        "envFrom": [{"secretRef": {"name": "b"}}, {"configMapRef": {"name": "c2"}}],
    }
    sources = [{"secret": {"name": "c"}}, {"configMap": {"name": "c3"}}]
    spec = {"initContainers": [container], "volumes": [{"name": "p", "projected": {"sources": sources}}]}
    world.put("pods", pod("web", "n1", imagePullSecrets=[{"name": "d"}], **spec), group="")
    assert all(world.may(NODE, "get", f"/api/v1/namespaces/default/secrets/{name}") for name in "abcd")
    assert all(world.may(NODE, "get", f"/api/v1/namespaces/default/configmaps/c{n}") for n in (1, 2, 3))


def test_a_node_reads_its_own_pods_and_lists_only_those() -> None:
    world = World()
    world.put("pods", pod("web", "n1"), group="")
    world.put("pods", pod("db", "n2"), group="")
    assert world.may(NODE, "get", "/api/v1/namespaces/default/pods/web")
    assert not world.may(NODE, "get", "/api/v1/namespaces/default/pods/db")
    for verb in ("list", "watch"):
        whole = Route(path="", verb=verb, resource_request=True, version="v1", plural="pods")
        assert not world.authorizer.allows(NODE, whole)
        assert world.authorizer.allows(NODE, dataclasses.replace(whole, fields=(("spec.nodeName", "n1"),)))
        assert not world.authorizer.allows(NODE, dataclasses.replace(whole, fields=(("spec.nodeName", "n2"),)))


def test_a_node_gets_tokens_for_its_pods_accounts_only_and_keeps_its_own_lease() -> None:
    world = World()
    token = "/api/v1/namespaces/default/serviceaccounts/{}/token"
    world.put("pods", pod("web", "n1"), group="")
    assert world.may(NODE, "create", token.format("robot"))
    assert not world.may(NODE, "create", token.format("other"))
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}"
    assert world.may(NODE, "update", lease.format("n1"))
    assert not world.may(NODE, "update", lease.format("n2"))


def test_the_name_alone_makes_no_node() -> None:
    world = World()
    world.put("pods", pod("web", "n1", volumes=[{"secret": {"secretName": "mine"}}]), group="")
    assert not world.may(user("system:node:n1"), "get", "/api/v1/namespaces/default/secrets/mine")


def role(*rules: dict[str, Any]) -> Document:
    return {"metadata": {"name": "r", "namespace": "dev"}, "rules": list(rules)}


READ_PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
READ_SECRETS = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}


def test_nobody_grants_what_they_do_not_hold() -> None:
    world = World()
    world.bind("b", "view", AS_ALICE, namespace="dev")
    check_escalation(world.authorizer, ALICE, "roles", role(READ_PODS))
    with pytest.raises(ApiError) as refused:
        check_escalation(world.authorizer, ALICE, "roles", role(READ_PODS, READ_SECRETS))
    assert str(refused.value) == (
        f'roles.{GROUP} "r" is forbidden: user "alice" (groups=["system:authenticated"]) is attempting to grant RBAC '
        'permissions not currently held:\n{Verbs:["get"], ApiGroups:[""], Resources:["secrets"]}'
    )
    check_escalation(world.authorizer, user("root", "system:masters"), "roles", role(READ_SECRETS))


def test_binding_a_role_needs_its_rules_or_the_verb_bind() -> None:
    world = World()
    world.bind("b", "view", AS_ALICE, namespace="dev")

    def binding(name: str) -> Document:
        return {"metadata": {"name": "x", "namespace": "dev"}, "roleRef": {"kind": "ClusterRole", "name": name}}

    check_escalation(world.authorizer, ALICE, "rolebindings", binding("view"))
    with pytest.raises(ApiError, match="not currently held"):
        check_escalation(world.authorizer, ALICE, "rolebindings", binding("edit"))
    with pytest.raises(ApiError, match="not found"):
        check_escalation(world.authorizer, ALICE, "rolebindings", binding("nothing"))
    may_bind = {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["edit"]}
    world.put("clusterroles", {"metadata": {"name": "binder"}, "rules": [may_bind]})
    world.bind("c", "binder", AS_ALICE, namespace="dev")
    check_escalation(world.authorizer, ALICE, "rolebindings", binding("edit"))


@pytest.mark.parametrize(
    ("wanted", "held", "missing"),
    [
        (READ_PODS, {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, 0),
        ({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}, READ_PODS, 1),
        (READ_PODS, {**READ_PODS, "resourceNames": ["one"]}, 1),
        ({**READ_PODS, "resourceNames": ["one", "two"]}, {**READ_PODS, "resourceNames": ["one"]}, 1),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/x"]}, {"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, 0),
        ({"verbs": ["get"], "nonResourceURLs": ["*"]}, {"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, 1),
    ],
)
def test_coverage(wanted: dict[str, Any], held: dict[str, Any], missing: int) -> None:
    assert len(covered([Rule.from_wire(wanted)], [Rule.from_wire(held)])) == missing


def test_reviews() -> None:
    world = World()
    attributes = {"namespace": "dev", "verb": "list", "resource": "pods"}
    own = {"spec": {"resourceAttributes": attributes}}
    assert review_access(world.authorizer, ALICE, "SelfSubjectAccessReview", own)["status"] == {"allowed": False}
    other = {"spec": {"user": "root", "groups": ["system:masters"], "resourceAttributes": attributes}}
    assert review_access(world.authorizer, ALICE, "SubjectAccessReview", other)["status"] == {"allowed": True}
    world.bind("b", "view", AS_ALICE, namespace="dev")
    status = review_rules(world.authorizer, ALICE, {"spec": {"namespace": "dev"}})["status"]
    assert any("pods" in rule["resources"] for rule in status["resourceRules"]) and status["nonResourceRules"]
    with pytest.raises(ApiError, match="exactly one of"):
        review_access(world.authorizer, ALICE, "SelfSubjectAccessReview", {"spec": {}})


def test_the_bootstrap_objects_are_valid_and_unique() -> None:
    seen = set()
    for plural, document in bootstrap_objects():
        which = lookup(GROUP, "v1", plural)
        assert which is not None
        conformed = conform(which, document, "Strict").document
        default(which, conformed)
        assert validate(which, conformed) == ()
        key = (plural, document["metadata"]["name"])
        assert key not in seen
        seen.add(key)


def test_what_an_administrator_added_stays_and_what_was_removed_comes_back() -> None:
    wanted = dict(bootstrap_objects())["roles"]
    assert reconciled(None, wanted) is wanted
    assert reconciled(copy.deepcopy(wanted), wanted) is None
    changed = copy.deepcopy(wanted)
    changed["rules"] = [READ_PODS]
    repaired = reconciled(changed, wanted)
    assert repaired is not None and repaired["rules"] == [READ_PODS, *wanted["rules"]]
    changed["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false"
    assert reconciled(changed, wanted) is None
