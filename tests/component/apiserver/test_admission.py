"""What restricted users may do through the whole server: authorisation, admission and strategies together."""

from __future__ import annotations

from typing import Any

from pilotage.testing.wire import CONFIG_MAPS, PODS, Answer, Http, config_map, pod

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
SECRETS = "/api/v1/namespaces/default/secrets"


async def grant(http: Http, user: str, *rules: dict[str, Any]) -> None:
    """A role of its own for a user in the namespace `default`."""
    group = "rbac.authorization.k8s.io"
    role = {"metadata": {"name": user}, "rules": list(rules)}
    binding = {
        "metadata": {"name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
        "roleRef": {"kind": "Role", "name": user, "apiGroup": group},
    }
    assert (await http("POST", f"{RBAC}/roles", role)).status == 201
    assert (await http("POST", f"{RBAC}/rolebindings", binding)).status == 201


async def as_user(http: Http, user: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    return await http(method, path, body, Impersonate_User=user, **headers)


async def as_node(http: Http, node: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    name = f"system:node:{node}"
    return await http(method, path, body, Impersonate_User=name, Impersonate_Group="system:nodes", **headers)


async def bound_pod(http: Http, name: str, node: str, **spec: Any) -> None:
    document = pod(name)
    document["spec"] |= {"nodeName": node, **spec}
    assert (await http("POST", PODS, document)).status == 201


async def test_an_apply_that_creates_needs_leave_to_create(http: Http) -> None:
    rule = {"verbs": ["get", "patch"], "apiGroups": [""], "resources": ["configmaps"]}
    await grant(http, "bob", rule)
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"a": "1"}}
    path, kind = f"{CONFIG_MAPS}/new?fieldManager=bob", "application/apply-patch+yaml"
    refused = await as_user(http, "bob", "PATCH", path, applied, Content_Type=kind)
    assert refused.status == 403 and 'cannot create resource "configmaps"' in refused.body["message"]
    await http("POST", CONFIG_MAPS, config_map("new"))
    assert (await as_user(http, "bob", "PATCH", f"{path}&force=true", applied, Content_Type=kind)).status == 200


async def test_nobody_grants_more_than_they_hold(http: Http) -> None:
    await grant(
        http,
        "carol",
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
    )
    # The star holds `escalate` too, so this user may write any role; without it only what they hold.
    role = {"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]}
    assert (await as_user(http, "carol", "POST", f"{RBAC}/roles", role)).status == 201
    writer = {"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]}
    await grant(http, "dave", writer, {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})
    role["metadata"]["name"] = "s"
    refused = await as_user(http, "dave", "POST", f"{RBAC}/roles", role)
    assert refused.status == 403 and "not currently held" in refused.body["message"]
    role["rules"][0]["resources"] = ["pods"]
    assert (await as_user(http, "dave", "POST", f"{RBAC}/roles", role)).status == 201


async def test_a_node_watches_the_secret_its_pod_names_and_no_other(http: Http) -> None:
    for name in ("mine", "theirs"):
        await http("POST", SECRETS, {"metadata": {"name": name}, "stringData": {"a": "b"}})
    await bound_pod(http, "web", "n1", volumes=[{"name": "v", "secret": {"secretName": "mine"}}])
    one = f"{SECRETS}?fieldSelector=metadata.name%3Dmine"
    answer = await as_node(http, "n1", "GET", one)
    assert answer.status == 200 and [item["data"] for item in answer.body["items"]] == [{"a": "Yg=="}]
    assert (await as_node(http, "n2", "GET", one)).status == 403
    assert (await as_node(http, "n1", "GET", f"{SECRETS}?fieldSelector=metadata.name%3Dtheirs")).status == 403
    assert (await as_node(http, "n1", "GET", f"{SECRETS}?fieldSelector=metadata.name!%3Dtheirs")).status == 403
    assert (await as_node(http, "n1", "GET", SECRETS)).status == 403
    await http("DELETE", f"{PODS}/web?gracePeriodSeconds=0")
    assert (await as_node(http, "n1", "GET", one)).status == 403


async def test_a_node_reports_on_its_own_pods_only(http: Http) -> None:
    await bound_pod(http, "web", "n1")
    body, kind = {"status": {"phase": "Running"}}, "application/merge-patch+json"
    refused = await as_node(http, "n2", "PATCH", f"{PODS}/web/status", body, Content_Type=kind)
    assert refused.status == 403 and "spec.nodeName set to itself" in refused.body["message"]
    answer = await as_node(http, "n1", "PATCH", f"{PODS}/web/status", body, Content_Type=kind)
    assert answer.status == 200 and answer.body["status"]["phase"] == "Running"
    assert (await as_node(http, "n2", "DELETE", f"{PODS}/web")).status == 403


async def test_tokens_for_a_pod_come_from_its_node_and_die_with_it(http: Http) -> None:
    await bound_pod(http, "web", "n1")
    uid = (await http("GET", f"{PODS}/web")).body["metadata"]["uid"]
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    body = {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}}}
    assert (await as_node(http, "n2", "POST", path, body)).status == 403
    answer = await as_node(http, "n1", "POST", path, body)
    assert answer.status == 201
    review = {"spec": {"token": answer.body["status"]["token"]}}

    async def reviewed() -> Any:
        return (await http("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)).body["status"]

    assert (await reviewed())["user"]["username"] == "system:serviceaccount:default:default"
    await http("DELETE", f"{PODS}/web?gracePeriodSeconds=0")
    assert not (await reviewed()).get("authenticated")


MERGE = "application/merge-patch+json"
SECURITY = "pod-security.kubernetes.io/"


async def test_a_namespace_enforces_the_pod_security_level_of_its_labels(http: Http) -> None:
    privileged = pod("p")
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    assert (await http("POST", PODS, {**privileged, "metadata": {"name": "old"}})).status == 201
    bad = {"metadata": {"labels": {f"{SECURITY}enforce": "tight"}}}
    answer = await http("PATCH", "/api/v1/namespaces/default", bad, Content_Type=MERGE)
    assert answer.status == 422 and "must be one of privileged, baseline, restricted" in answer.body["message"]
    labels = {f"{SECURITY}enforce": "baseline", f"{SECURITY}warn": "restricted"}
    answer = await http("PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": labels}}, Content_Type=MERGE)
    assert answer.status == 200
    warned = answer.headers.getall("Warning")
    assert 'existing pods in namespace \\"default\\" violate the new PodSecurity enforce level' in warned[0]
    assert warned[1] == '299 - "old: privileged"'
    refused = await http("POST", PODS, privileged)
    assert refused.status == 403 and refused.body["message"] == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "main" must not set '
        "securityContext.privileged=true)"
    )
    allowed = await http("POST", PODS, pod("plain"))
    assert allowed.status == 201
    assert 'would violate PodSecurity \\"restricted:latest\\": allow' in allowed.headers["Warning"]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": privileged["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = await http("POST", "/apis/apps/v1/namespaces/default/deployments", {"metadata": {"name": "d"}, "spec": spec})
    assert made.status == 201 and "would violate" in made.headers["Warning"]


async def test_a_pod_gets_the_zone_and_region_of_its_node(http: Http) -> None:
    labels = {"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r", "other": "x"}
    await http("POST", "/api/v1/nodes", {"metadata": {"name": "n1", "labels": labels}})
    await http("POST", PODS, pod("bound"))
    target = {"target": {"kind": "Node", "name": "n1"}}
    assert (await http("POST", f"{PODS}/bound/binding", {"metadata": {"name": "bound"}, **target})).status == 201
    await bound_pod(http, "created", "n1")
    for name in ("bound", "created"):
        found = (await http("GET", f"{PODS}/{name}")).body["metadata"]["labels"]
        assert {key: found.get(key) for key in labels} == {**labels, "other": None}


async def test_limit_ranges_fill_in_and_bound_pods_and_claims(http: Http) -> None:
    limits = [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m"},
         "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "Pod", "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]  # fmt: skip
    path = "/api/v1/namespaces/default/limitranges"
    assert (await http("POST", path, {"metadata": {"name": "l"}, "spec": {"limits": limits}})).status == 201
    made = (await http("POST", PODS, pod("a"))).body
    told = made["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
    assert told == "LimitRanger plugin set: cpu request for container main; cpu limit for container main"
    wide = pod("b")
    wide["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "500m"}, "limits": {"cpu": "1500m"}}
    answer = await http("POST", PODS, wide)
    assert answer.status == 403 and answer.body["message"].endswith(
        "[cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000, "
        "maximum cpu usage per Pod is 1, but limit is 1500m]"
    )
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    claim = {"metadata": {"name": "c"}, "spec": spec}
    answer = await http("POST", "/api/v1/namespaces/default/persistentvolumeclaims", claim)
    assert "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi" in answer.body["message"]


async def test_what_is_kept_and_not_acted_upon_says_so(http: Http) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"
    level = {"metadata": {"name": "a"}, "spec": {"type": "Exempt", "exempt": {}}}
    created = await http("POST", path, level)
    assert created.status == 201, created.body
    assert "does not act on them" in created.headers["Warning"]
    assert "Warning" not in (await http("GET", f"{path}/a")).headers
    assert "Warning" not in (await http("DELETE", f"{path}/a")).headers
