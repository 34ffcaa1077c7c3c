"""Who one is on the wire, and what that allows."""

import base64
from pathlib import Path

import aiohttp
import jwt
import pytest

from pilotage.api.status import ApiError
from pilotage.apiserver.certificates import write_kubeconfig
from pilotage.client import Client, load_kubeconfig
from pilotage.testing.cluster import api_server
from pilotage.testing.wire import CONFIG_MAPS, PODS, Http, config_map, connected, pod


async def status_as(http: Http, kubeconfig: Path, method: str, path: str) -> tuple[int, str]:
    """What a request of another user is answered."""
    connection = load_kubeconfig(kubeconfig)
    headers = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, http.server.url + path, ssl=connection.ssl_context(), headers=headers) as answer,
    ):
        body = await answer.json(content_type=None)
        return answer.status, body.get("message", "")


async def test_the_administrator_is_known_by_certificate(http: Http) -> None:
    answer = await http("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    user = answer.body["status"]["userInfo"]
    assert user["username"] == "kubernetes-admin" and "system:masters" in user["groups"]


async def test_nobody_may_do_nothing(http: Http) -> None:
    connection = load_kubeconfig(http.server.kubeconfig_path)
    context = connection.ssl_context()
    path = http.server.data_dir / "nobody.kubeconfig"
    write_kubeconfig(path, server=http.server.url, ca_pem=connection.ca_pem.encode())
    assert context is not None
    status, message = await status_as(http, path, "GET", PODS)
    assert status == 403 and 'User "system:anonymous" cannot list resource "pods"' in message
    write_kubeconfig(path, server=http.server.url, ca_pem=connection.ca_pem.encode(), token="nonsense")
    assert (await status_as(http, path, "GET", PODS))[0] == 401


async def test_roles_grant_what_they_say(http: Http) -> None:
    kubeconfig = http.server.kubeconfig_of("jane")
    assert (await status_as(http, kubeconfig, "GET", CONFIG_MAPS))[0] == 403
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    await http("POST", f"{roles}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}
    binding = {"metadata": {"name": "jane"}, "roleRef": reference, "subjects": [subject]}
    assert (await http("POST", f"{roles}/rolebindings", binding)).status == 201
    assert (await status_as(http, kubeconfig, "GET", CONFIG_MAPS))[0] == 200
    assert (await status_as(http, kubeconfig, "GET", f"{CONFIG_MAPS}/a"))[0] == 403
    assert (await status_as(http, kubeconfig, "GET", "/api/v1/configmaps"))[0] == 403
    await http("DELETE", f"{roles}/rolebindings/jane")
    assert (await status_as(http, kubeconfig, "GET", CONFIG_MAPS))[0] == 403


async def test_discovery_and_health_are_open_to_those_who_are_somebody(http: Http) -> None:
    kubeconfig = http.server.kubeconfig_of("jane")
    for path in ("/api", "/apis", "/openapi/v3", "/version"):
        assert (await status_as(http, kubeconfig, "GET", path))[0] == 200, path
    assert (await status_as(http, kubeconfig, "GET", "/metrics"))[0] == 403


async def test_a_service_account_token_lives_and_dies_with_its_pod(http: Http, tmp_path: Path) -> None:
    await http("POST", PODS, pod("a"))
    uid = (await http("GET", f"{PODS}/a")).body["metadata"]["uid"]
    bound = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": uid}}}
    answer = await http("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", bound)
    assert answer.status == 201, answer.body
    token = answer.body["status"]["token"]
    review = await http("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})
    assert review.body["status"]["user"]["username"] == "system:serviceaccount:default:default"
    authority = load_kubeconfig(http.server.kubeconfig_path).ca_pem.encode()
    path = tmp_path / "account"
    write_kubeconfig(path, server=http.server.url, ca_pem=authority, token=token)
    assert (await status_as(http, path, "GET", "/version"))[0] == 200
    status, message = await status_as(http, path, "GET", PODS)
    assert status == 403 and "system:serviceaccount:default:default" in message
    await http("DELETE", f"{PODS}/a")
    assert (await status_as(http, path, "GET", "/version"))[0] == 401


async def test_a_component_may_ask_before_it_acts(http: Http) -> None:
    attributes = {"verb": "delete", "resource": "pods", "namespace": "default"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = await http("POST", path, {"spec": {"resourceAttributes": attributes}})
    assert answer.body["status"]["allowed"] is True
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    answer = await http("POST", path, {"spec": {"user": "jane", "resourceAttributes": attributes}})
    assert answer.body["status"]["allowed"] is False


async def test_a_restart_keeps_objects_identities_and_the_order_of_versions(tmp_path: Path) -> None:
    storage = f"sqlite:{tmp_path / 'state.db'}"
    async with api_server(storage=storage, data_dir=tmp_path) as server, connected(server) as http:
        created = await http("POST", CONFIG_MAPS, config_map("a", x="1"))
        secret = {"metadata": {"name": "s"}, "data": {"k": base64.b64encode(b"v").decode()}}
        await http("POST", "/api/v1/namespaces/default/secrets", secret)
        authority = load_kubeconfig(server.kubeconfig_path).ca_pem
        last = int((await http("GET", CONFIG_MAPS)).version)
    async with api_server(storage=storage, data_dir=tmp_path) as server, connected(server) as http:
        assert load_kubeconfig(server.kubeconfig_path).ca_pem == authority
        assert (await http("GET", f"{CONFIG_MAPS}/a")).body == created.body
        assert int((await http("POST", CONFIG_MAPS, config_map("b"))).version) > last
        stale = await http("GET", f"{CONFIG_MAPS}?watch=true&resourceVersion={created.version}")
        assert (stale.status, stale.reason) == (410, "Expired")


async def test_the_typed_client_sees_the_same_errors(http: Http, tmp_path: Path) -> None:
    from pilotage.api.core_v1 import ConfigMap

    async with Client.from_kubeconfig(http.server.kubeconfig_of("jane")) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(ConfigMap, "a", namespace="default")
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")


async def test_others_can_verify_tokens_by_what_the_server_publishes(http: Http) -> None:
    configuration = (await http("GET", "/.well-known/openid-configuration")).body
    assert configuration["jwks_uri"].endswith("/openid/v1/jwks")
    answer = await http("GET", "/openid/v1/jwks")
    assert answer.headers["Content-Type"].startswith("application/jwk-set+json")
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await http("POST", path, {"spec": {"audiences": ["me"]}})).body["status"]["token"]
    keys = jwt.PyJWKSet.from_json(answer.raw.decode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="me", issuer=configuration["issuer"])
    assert claims["sub"] == "system:serviceaccount:default:default"
    anonymous = {"Impersonate_User": "system:anonymous", "Impersonate_Group": "system:unauthenticated"}
    assert (await http("GET", "/openid/v1/jwks", **anonymous)).status == 403


async def test_a_secret_of_an_account_holds_a_token_that_dies_with_it(http: Http) -> None:
    annotations = {"kubernetes.io/service-account.name": "default"}
    secret = {"metadata": {"name": "s", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    path = "/api/v1/namespaces/default/secrets"
    made = (await http("POST", path, secret)).body
    assert made["metadata"]["annotations"]["kubernetes.io/service-account.uid"]
    assert set(made["data"]) == {"token", "namespace", "ca.crt"}
    token = base64.b64decode(made["data"]["token"]).decode()
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    status = (await http("POST", reviews, {"spec": {"token": token}})).body["status"]
    assert status["user"]["username"] == "system:serviceaccount:default:default"
    await http("DELETE", f"{path}/s")
    await http("POST", path, secret)  # the same name is not the same Secret
    status = (await http("POST", reviews, {"spec": {"token": token}})).body["status"]
    assert not status.get("authenticated")
