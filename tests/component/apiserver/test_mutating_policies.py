"""Mutating policies over real HTTP: what they make of a write is defaulted and judged like what a client sends."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.testing.wire import CONFIG_MAPS, PODS, Document, Http, config_map, pod

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/mutatingadmissionpolicies", f"{ADMISSION}/mutatingadmissionpolicybindings"
MERGE = {"Content_Type": "application/merge-patch+json"}


def rule(*resources: str, group: str = "", operations: tuple[str, ...] = ("CREATE", "UPDATE")) -> Document:
    return {
        "operations": list(operations),
        "apiGroups": [group],
        "apiVersions": ["*"],
        "resources": list(resources or ("configmaps",)),
    }


def mutation(expression: str) -> Document:
    """Of a list a JSON patch, of anything else an apply configuration."""
    if expression.lstrip().startswith("["):
        return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def policy(name: str, *expressions: str, rules: tuple[Document, ...] = (rule(),), **spec: Any) -> Document:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": list(rules)},
            "mutations": [mutation(each) for each in expressions],
            "reinvocationPolicy": "Never",
            **spec,
        },
    }


def binding(name: str, **spec: Any) -> Document:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, **spec},
    }


async def bind(http: Http, document: Document, **spec: Any) -> None:
    created = await http("POST", POLICIES, document)
    assert created.status == 201, created.body
    assert "Warning" not in created.headers
    bound = await http("POST", BINDINGS, binding(document["metadata"]["name"], **spec))
    assert bound.status == 201, bound.body


async def create(http: Http, document: Document, path: str = CONFIG_MAPS) -> Document:
    answer = await http("POST", path, document)
    assert answer.status == 201, answer.body
    stored: Document = answer.body
    assert (await http("GET", f"{path}/{stored['metadata']['name']}")).body == stored
    return stored


def labelling(key: str, value: str) -> str:
    return f"Object{{metadata: Object.metadata{{labels: {{'{key}': {value}}}}}}}"


async def test_a_policy_changes_what_is_written_where_it_is_bound(http: Http) -> None:
    assert (await http("POST", POLICIES, policy("label", labelling("seen", "request.operation")))).status == 201
    assert "labels" not in (await create(http, config_map("a")))["metadata"]
    assert (await http("POST", BINDINGS, binding("label"))).status == 201
    assert (await create(http, config_map("b", labels={"own": "x"})))["metadata"]["labels"] == {
        "own": "x",
        "seen": "CREATE",
    }
    updated = await http("PATCH", f"{CONFIG_MAPS}/b", {"data": {"k": "v"}}, **MERGE)
    assert updated.body["metadata"]["labels"]["seen"] == "UPDATE"
    owner = next(each for each in updated.body["metadata"]["managedFields"])
    assert "f:seen" in str(owner["fieldsV1"])  # what a policy sets belongs to whoever wrote
    assert (await http("DELETE", f"{BINDINGS}/label")).status == 200
    assert "labels" not in (await create(http, config_map("c")))["metadata"]


async def test_a_container_is_merged_by_its_name_and_completed(http: Http) -> None:
    sidecar = """
        Object{spec: Object.spec{
            initContainers: [Object.spec.initContainers{
                name: "mesh", image: "mesh:latest", restartPolicy: "Always",
                ports: [Object.spec.initContainers.ports{containerPort: 8080}]
            }],
            containers: object.spec.containers.map(c, Object.spec.containers{
                name: c.name,
                env: [Object.spec.containers.env{name: "MESH", value: "on"}]
            })
        }}"""
    await bind(http, policy("sidecar", sidecar, rules=(rule("pods", operations=("CREATE",)),)))
    document = pod("a")
    document["spec"]["containers"][0]["env"] = [{"name": "OWN", "value": "1"}, {"name": "MESH", "value": "off"}]
    spec = (await create(http, document, PODS))["spec"]
    assert spec["containers"][0]["env"] == [{"name": "OWN", "value": "1"}, {"name": "MESH", "value": "on"}]
    (mesh,) = spec["initContainers"]
    assert (mesh["imagePullPolicy"], mesh["ports"]) == ("Always", [{"containerPort": 8080, "protocol": "TCP"}])
    # Admission completes what a policy adds, as if the client had sent it.
    assert [each["mountPath"] for each in mesh["volumeMounts"]] == ["/var/run/secrets/kubernetes.io/serviceaccount"]


async def test_what_a_policy_makes_is_judged_like_anything_else(http: Http) -> None:
    await bind(http, policy("wrong", labelling("seen", "'not a label!'")))
    refused = await http("POST", CONFIG_MAPS, config_map("a"))
    assert (refused.status, refused.reason) == (422, "Invalid")
    assert refused.body["details"]["causes"][0]["field"] == "metadata.labels"
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    assert (await http("PATCH", "/api/v1/namespaces/default", labels, **MERGE)).status == 200
    privileged = "Object{spec: Object.spec{hostNetwork: true}}"
    await bind(http, policy("privileged", privileged, rules=(rule("pods"),)))
    refused = await http("POST", PODS, pod("a"))
    assert refused.status == 403 and "violates PodSecurity" in refused.body["message"]


async def test_a_json_patch_adds_removes_and_tests(http: Http) -> None:
    patch = """[
        JSONPatch{op: "test", path: "/data/keep", value: "no"},
        JSONPatch{op: "remove", path: "/data/secret"},
        JSONPatch{op: "add", path: "/metadata/annotations",
                  value: {"by": request.userInfo.username, "example.test/a-b": "0"}},
        JSONPatch{op: "replace", path: "/metadata/annotations/" + jsonpatch.escapeKey("example.test/a-b"), value: "1"}
    ]"""
    await bind(http, policy("patch", patch))
    changed = await create(http, config_map("a", keep="no", secret="x"))
    assert changed["data"] == {"keep": "no"}
    assert changed["metadata"]["annotations"] == {"by": "kubernetes-admin", "example.test/a-b": "1"}
    assert (await create(http, config_map("b", keep="yes", secret="x")))["data"] == {"keep": "yes", "secret": "x"}
    refused = await http("POST", CONFIG_MAPS, config_map("c", keep="no"))
    assert (refused.status, refused.reason) == (403, "Invalid")
    assert refused.body["message"].startswith("policy 'patch' with binding 'patch' denied request: JSONPatch: ")


async def test_mutations_and_policies_come_in_turn(http: Http) -> None:
    counted = "Object{data: {'count': string(int(object.?data.?count.orValue('0')) + %d)}}"
    await bind(http, policy("a", counted % 1, "[JSONPatch{op: 'add', path: '/data/a', value: object.data.count}]"))
    await bind(http, policy("b", counted % 10))
    assert (await create(http, config_map("x")))["data"] == {"count": "11", "a": "1"}


async def test_a_policy_that_wants_it_sees_what_changed_after_it(http: Http) -> None:
    noting = "Object{data: {'%s': string(object.?data.orValue({}).size())}}"
    await bind(http, policy("a", noting % "needed", reinvocationPolicy="IfNeeded"))
    await bind(http, policy("b", noting % "never"))
    # The first is asked again because of the second, not because of itself.
    assert (await create(http, config_map("x")))["data"] == {"needed": "2", "never": "1"}
    assert (await http("DELETE", f"{BINDINGS}/b")).status == 200
    assert (await create(http, config_map("y")))["data"] == {"needed": "0"}


async def test_variables_conditions_and_parameters(http: Http) -> None:
    for name, on in (("one", "yes"), ("two", "no"), ("three", "yes")):
        assert (await http("POST", CONFIG_MAPS, config_map(name, labels={"team": "x"}, on=on))).status == 201
    document = policy(
        "teams",
        "Object{metadata: Object.metadata{labels: {variables.key: 'true'}}}",
        variables=[{"name": "prefix", "expression": "'from-'"},
                   {"name": "key", "expression": "variables.prefix + params.metadata.name"}],
        matchConditions=[{"name": "on", "expression": "params.data.on == 'yes' && object.metadata.name != 'skip'"}],
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
    )  # fmt: skip
    reference = {"selector": {"matchLabels": {"team": "x"}}, "namespace": "default", "parameterNotFoundAction": "Deny"}
    resources = {"objectSelector": {"matchExpressions": [{"key": "off", "operator": "DoesNotExist"}]}}
    await bind(http, document, paramRef=reference, matchResources=resources)
    assert (await create(http, config_map("a")))["metadata"]["labels"] == {"from-one": "true", "from-three": "true"}
    assert "labels" not in (await create(http, config_map("skip")))["metadata"]
    assert (await create(http, config_map("b", labels={"off": ""})))["metadata"]["labels"] == {"off": ""}
    absent = {"spec": {"paramRef": {"name": "gone", "selector": None}}}
    assert (await http("PATCH", f"{BINDINGS}/teams", absent, **MERGE)).status == 200
    refused = await http("POST", CONFIG_MAPS, config_map("c"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert refused.body["message"] == (
        "policy 'teams' with binding 'teams' denied request: failed to configure binding: "
        "no params found for policy binding with `Deny` parameterNotFoundAction"
    )


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("Object{data: {'x': object.data.missing}}", "no such key: missing"),
        ("Object{data: {'x': variables.broken}}",
         "composited variable 'broken' fails to evaluate: no such key: missing"),
        ("Object{spec: Object.spec{}}",
         "error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema"),
        ("Object{metadata: Object.meta{}}",
         'type mismatch: unexpected type name "Object.meta", expected "Object.metadata", '
         "which matches field name path from root Object type"),
        ("Object{metadata: Object.metadata{ownerReferences: [Object.metadata.ownerReferences{uid: 'x'}]}}",
         "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
         ".metadata.ownerReferences[0]"),
        ("object", "must evaluate to Object but got map"),
        ("[JSONPatch{op: 'add', path: '/spec', value: 1}]", 'strict decoding error: unknown field "spec"'),
    ],
)  # fmt: skip
async def test_failure_policy_decides_when_a_mutation_fails(http: Http, expression: str, why: str) -> None:
    variables = [{"name": "broken", "expression": "object.data.missing"}]
    await bind(http, policy("failing", expression, labelling("seen", "'yes'"), variables=variables))
    refused = await http("POST", CONFIG_MAPS, config_map("a"))
    assert (refused.status, refused.reason) == (403, "Invalid")
    assert refused.body["message"].startswith("policy 'failing' with binding 'failing' denied request: ")
    assert refused.body["message"].endswith(why)
    ignoring = {"spec": {"failurePolicy": "Ignore"}}
    assert (await http("PATCH", f"{POLICIES}/failing", ignoring, **MERGE)).status == 200
    assert (await create(http, config_map("a")))["metadata"]["labels"] == {"seen": "yes"}


async def test_an_endless_mutation_is_cut_off(http: Http) -> None:
    loops = "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))"
    await bind(http, policy("slow", f"Object{{data: {{'x': string({loops})}}}}"))
    refused = await http("POST", CONFIG_MAPS, config_map("a", **{f"k{i}": "v" for i in range(200)}))
    assert refused.status == 403 and "cost limit exceeded" in refused.body["message"]


async def test_custom_resources_are_merged_by_their_schema(http: Http) -> None:
    crew = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"}, "rank": {"type": "string", "default": "mate"}, "age": {"type": "integer"}}},
    }  # fmt: skip
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"crew": crew}}}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.harbour.test"},
        "spec": {
            "group": "harbour.test",
            "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await http("POST", path, definition)).status == 201
    crewed = "Object{spec: Object.spec{crew: [Object.spec.crew{name: 'jo', age: 7}, Object.spec.crew{name: 'al'}]}}"
    louder = (
        "Object{spec: Object.spec{crew: object.spec.crew.map(c, Object.spec.crew{name: c.name, rank: c.rank + '!'})}}"
    )
    await bind(http, policy("crew", crewed, louder, rules=(rule("boats", group="harbour.test"),)))
    boat = {"apiVersion": "harbour.test/v1", "kind": "Boat", "metadata": {"name": "ann"}}
    boat["spec"] = {"crew": [{"name": "jo", "rank": "captain"}]}
    stored = await create(http, boat, "/apis/harbour.test/v1/namespaces/default/boats")
    assert stored["spec"]["crew"] == [{"name": "jo", "rank": "captain!", "age": 7}, {"name": "al", "rank": "mate!"}]


async def test_policies_are_not_subject_to_policies(http: Http) -> None:
    everything = {**rule("*/*", operations=("*",)), "apiGroups": ["*"]}
    await bind(http, policy("all", labelling("seen", "object.nothing"), rules=(everything,)))
    assert (await http("POST", CONFIG_MAPS, config_map("a"))).status == 403
    changed = await http("PATCH", f"{POLICIES}/all", {"metadata": {"labels": {"a": "b"}}}, **MERGE)
    assert changed.body["metadata"]["labels"] == {"a": "b"}
    assert (await http("DELETE", f"{BINDINGS}/all")).status == 200
    await create(http, config_map("a"))


async def test_an_apply_and_a_dry_run_are_completed_too(http: Http) -> None:
    await bind(http, policy("label", labelling("seen", "string(request.dryRun)")))
    applied = {**config_map("a"), "apiVersion": "v1", "kind": "ConfigMap"}
    kind = {"Content_Type": "application/apply-patch+yaml"}
    answer = await http("PATCH", f"{CONFIG_MAPS}/a?fieldManager=me&dryRun=All", applied, **kind)
    assert answer.body["metadata"]["labels"] == {"seen": "true"}
    answer = await http("PATCH", f"{CONFIG_MAPS}/a?fieldManager=me", applied, **kind)
    assert answer.body["metadata"]["labels"] == {"seen": "false"}


@pytest.mark.parametrize(
    ("expression", "field", "why"),
    [
        ("Object{data: objct.data}", "applyConfiguration", "undeclared reference to 'objct"),
        ("'text'", "applyConfiguration", "must evaluate to Object but got string"),
        ("[JSONPatch{op: 'add', to: 'x'}]", "jsonPatch", "undefined field 'to'"),
        ("1", "applyConfiguration", "must evaluate to Object but got int"),
    ],
)
async def test_policies_that_do_not_compile_are_refused(http: Http, expression: str, field: str, why: str) -> None:
    answer = await http("POST", POLICIES, policy("x", expression))
    assert (answer.status, answer.reason) == (422, "Invalid")
    (cause,) = answer.body["details"]["causes"]
    assert cause["field"] == f"spec.mutations[0].{field}.expression" and why in cause["message"]
