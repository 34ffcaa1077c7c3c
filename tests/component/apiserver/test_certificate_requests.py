"""CertificateSigningRequests: asked, approved, signed, and usable; and who may do which."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilotage.testing.wire import Http

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT, KUBELET, SERVING = (
    f"kubernetes.io/{name}" for name in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving")
)
CLIENT_USAGES = ["digital signature", "client auth"]


def request(
    user: str, *groups: str, names: tuple[str, ...] = (), key: ec.EllipticCurvePrivateKey | None = None
) -> str:  # fmt: skip
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def document(name: str, asked: str, signer: str = CLIENT, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"request": asked, "signerName": signer, "usages": CLIENT_USAGES, **spec},
    }


async def decide(http: Http, name: str, kind: str, **headers: str) -> int:
    found = (await http("GET", f"{PATH}/{name}")).body
    found["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "Test", "message": "yes"}]}
    return (await http("PUT", f"{PATH}/{name}/approval", found, **headers)).status


async def status(http: Http, name: str, wanted: str) -> dict[str, Any]:
    """The request's status once it has a certificate, or a condition of the type wanted."""
    async with asyncio.timeout(10):
        while True:
            found: dict[str, Any] = (await http("GET", f"{PATH}/{name}")).body.get("status") or {}
            if wanted in found or wanted in [item["type"] for item in found.get("conditions") or ()]:
                return found
            await asyncio.sleep(0.01)


async def test_an_approved_request_becomes_a_certificate_that_lets_its_holder_in(http: Http, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = await http("POST", PATH, document("mary", request("mary", "devs", key=key), expirationSeconds=3600))
    assert made.status == 201
    assert made.body["spec"]["username"] == "kubernetes-admin" and "system:masters" in made.body["spec"]["groups"]
    assert await decide(http, "mary", "Approved") == 200
    pem = base64.b64decode((await status(http, "mary", "certificate"))["certificate"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_after_utc.timestamp() - certificate.not_valid_before_utc.timestamp() == 2 * 3600
    no_password = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    file = tmp_path / "mary.pem"
    file.write_bytes(private + pem)
    tls = ssl.create_default_context(cafile=str(http.server.data_dir / "pki" / "ca.crt"))
    tls.load_cert_chain(file)
    url = f"{http.server.url}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with aiohttp.ClientSession() as session, session.post(url, json={}, ssl=tls) as response:
        who = (await response.json())["status"]["userInfo"]
    assert (who["username"], who["groups"]) == ("mary", ["devs", "system:authenticated"])


@pytest.mark.parametrize(
    ("asked", "signer", "usages", "why"),
    [
        (request("system:node:n1"), KUBELET, CLIENT_USAGES, "subject organization is not system:nodes"),
        (request("n1", "system:nodes"), KUBELET, CLIENT_USAGES, "does not begin with system:node:"),
        (request("system:node:n1", "system:nodes"), KUBELET, ["server auth"], "usages must be client auth"),
        (request("a"), CLIENT, ["server auth"], "usages must be client auth"),
        (request("system:node:n1", "system:nodes"), SERVING, ["server auth"], "subjectAltName is required"),
        (
            request("system:node:n1", "system:nodes", names=("n1",)),
            SERVING,
            ["digital signature", "server auth"],
            "must be the name of the requesting node",
        ),
    ],
)
async def test_what_a_signer_does_not_sign_fails_and_says_why(
    http: Http, asked: str, signer: str, usages: list[str], why: str
) -> None:
    assert (await http("POST", PATH, document("x", asked, signer, usages=usages))).status == 201
    assert await decide(http, "x", "Approved") == 200
    found = await status(http, "x", "Failed")
    assert why in found["conditions"][-1]["message"] and "certificate" not in found


async def test_a_node_gets_its_serving_certificate(http: Http) -> None:
    node = {"Impersonate_User": "system:node:n1", "Impersonate_Group": "system:nodes"}
    body = document("s", request("system:node:n1", "system:nodes", names=("n1",)), SERVING)
    body["spec"]["usages"] = ["digital signature", "server auth"]
    assert (await http("POST", PATH, body, **node)).status == 201
    assert await decide(http, "s", "Approved", **node) == 403
    assert await decide(http, "s", "Approved") == 200
    pem = base64.b64decode((await status(http, "s", "certificate"))["certificate"])
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["n1"]


async def test_a_node_that_may_renews_its_own_certificate_without_a_human(http: Http) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "renew"},
        "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": group}],
        "roleRef": {
            "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "apiGroup": group,
        },
    }
    assert (await http("POST", f"/apis/{group}/v1/clusterrolebindings", binding)).status == 201
    node = {"Impersonate_User": "system:node:n1", "Impersonate_Group": "system:nodes"}
    body = document("n", request("system:node:n1", "system:nodes"), KUBELET)
    assert (await http("POST", PATH, body, **node)).status == 201
    found = await status(http, "n", "certificate")
    assert found["conditions"][0]["reason"] == "AutoApproved"
    other = document("o", request("system:node:n2", "system:nodes"), KUBELET)
    assert (await http("POST", PATH, other, **node)).status == 201
    assert "status" not in (await http("GET", f"{PATH}/o")).body


async def test_nobody_asks_for_a_master_by_way_of_a_signer(http: Http) -> None:
    answer = await http("POST", PATH, document("m", request("me", "system:masters")))
    assert answer.status == 403 and "with system:masters group is not allowed" in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"request": "bm8="}, "spec.request"),
        ({"signerName": "nonsense"}, "spec.signerName"),
        ({"usages": []}, "spec.usages"),
        ({"usages": ["flying"]}, "spec.usages[0]"),
        ({"expirationSeconds": 5}, "spec.expirationSeconds"),
    ],
)
async def test_requests_that_make_no_sense(http: Http, spec: dict[str, Any], field: str) -> None:
    body = document("x", request("a"))
    body["spec"] |= spec
    answer = await http("POST", PATH, body)
    assert answer.status == 422 and answer.body["details"]["causes"][0]["field"] == field


async def test_a_decision_stands_and_approval_and_denial_exclude_each_other(http: Http) -> None:
    await http("POST", PATH, document("d", request("a")))
    assert await decide(http, "d", "Denied") == 200
    assert await decide(http, "d", "Approved") == 422
    found = (await http("GET", f"{PATH}/d")).body
    found["status"]["conditions"].append({"type": "Approved", "status": "True"})
    assert (await http("PUT", f"{PATH}/d/approval", found)).status == 422
    # Nor does the status subresource decide.
    await http("PUT", f"{PATH}/d/status", found)
    kinds = [item["type"] for item in (await http("GET", f"{PATH}/d")).body["status"]["conditions"]]
    assert kinds == ["Denied"]
