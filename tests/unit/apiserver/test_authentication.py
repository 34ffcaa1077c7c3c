"""Certificates and tokens become users; tokens die with what they are bound to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilotage.api.status import ApiError
from pilotage.api.timestamp import render
from pilotage.apiserver.authentication import ANONYMOUS, Authenticator, ServiceAccountTokens, UserInfo, impersonate
from pilotage.apiserver.certificates import LEAF_LIFETIME, Authority
from pilotage.apiserver.core.routes import Route
from pilotage.apiserver.documents import DictDocuments, Document
from pilotage.kit.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def account(name: str = "robot", uid: str = "u-robot") -> Document:
    return {"metadata": {"name": name, "namespace": "default", "uid": uid}}


def pod(name: str = "web-1", uid: str = "u-pod", **spec: Any) -> Document:
    metadata = {"name": name, "namespace": "default", "uid": uid}
    return {"metadata": metadata, "spec": {"serviceAccountName": "robot", "nodeName": "n1", **spec}}


class World:
    """A server's tokens over documents that tests may change."""

    def __init__(self) -> None:
        self.documents = DictDocuments()
        self.account = self.documents.put("", "serviceaccounts", account())
        self.pod = self.documents.put("", "pods", pod())
        self.documents.put("", "nodes", {"metadata": {"name": "n1", "uid": "u-node"}})
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.tokens = ServiceAccountTokens(self.key, self.documents)
        self.authenticator = Authenticator(self.tokens)

    def issue(self, **spec: Any) -> str:
        token: str = self.tokens.request(self.account, {"spec": spec}, NOW)["status"]["token"]
        return token

    def who(self, token: str, now: datetime = NOW) -> UserInfo:
        return self.authenticator.authenticate(None, f"Bearer {token}", now)

    def refused(self, token: str, now: datetime = NOW) -> bool:
        with pytest.raises(ApiError) as error:
            self.who(token, now)
        assert str(error.value) == "Unauthorized" and error.value.code == 401
        return True


BOUND = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web-1", "uid": "u-pod"}}


def test_a_client_certificate_names_a_user_and_groups() -> None:
    pair = Authority.create(clock=ManualClock(NOW)).issue_client("alice", ["dev", "ops"])
    der = x509.load_pem_x509_certificate(pair.certificate_pem).public_bytes(serialization.Encoding.DER)
    authenticator = Authenticator(None)
    user = authenticator.authenticate(der, None, NOW)
    assert user == UserInfo(name="alice", groups=("dev", "ops", "system:authenticated"))
    assert authenticator.authenticate(der, "Bearer nonsense", NOW) is user, "parsed once; the certificate comes first"
    with pytest.raises(ApiError, match="Unauthorized"):
        authenticator.authenticate(der, None, NOW + LEAF_LIFETIME + timedelta(seconds=1))


def test_without_credentials_one_is_anonymous_unless_that_is_forbidden() -> None:
    assert Authenticator(None).authenticate(None, None, NOW) is ANONYMOUS
    assert Authenticator(None).authenticate(None, "Basic YTpi", NOW) is ANONYMOUS
    with pytest.raises(ApiError, match="Unauthorized"):
        Authenticator(None, anonymous=False).authenticate(None, None, NOW)


def test_a_token_says_whose_it_is_and_where_it_runs() -> None:
    world = World()
    user = world.who(world.issue(**BOUND))
    assert user.name == "system:serviceaccount:default:robot" and user.uid == "u-robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("web-1",)
    assert user.extra["authentication.kubernetes.io/node-name"] == ("n1",)


def test_the_answer_to_a_token_request() -> None:
    world = World()
    answer = world.tokens.request(world.account, {"spec": {"expirationSeconds": 600}}, NOW)
    assert answer["status"]["expirationTimestamp"] == "2026-01-01T00:10:00Z"
    assert answer["spec"] == {"audiences": [world.tokens.issuer], "expirationSeconds": 600}
    claims = jwt.decode(answer["status"]["token"], options={"verify_signature": False})
    assert claims["iss"] == "https://kubernetes.default.svc.cluster.local"
    assert claims["kubernetes.io"] == {"namespace": "default", "serviceaccount": {"name": "robot", "uid": "u-robot"}}


def test_a_token_expires() -> None:
    world = World()
    token = world.issue(expirationSeconds=600)
    world.who(token, NOW + timedelta(seconds=599))
    assert world.refused(token, NOW + timedelta(seconds=600))


def test_a_token_is_for_its_audience() -> None:
    world = World()
    token = world.issue(audiences=["vault"])
    assert world.refused(token)
    review = world.authenticator.review({"spec": {"token": token, "audiences": ["vault", "other"]}}, NOW)
    assert review["status"]["authenticated"] is True and review["status"]["audiences"] == ["vault"]


@pytest.mark.parametrize("plural", ["pods", "serviceaccounts"])
def test_a_token_dies_with_what_it_is_bound_to(plural: str) -> None:
    world = World()
    token = world.issue(**BOUND)
    world.who(token)
    world.documents.remove("", plural, "default", "web-1" if plural == "pods" else "robot")
    assert world.refused(token)


def test_a_pod_of_the_same_name_does_not_inherit_the_token() -> None:
    world = World()
    token = world.issue(**BOUND)
    world.documents.put("", "pods", pod(uid="u-other"))
    assert world.refused(token)


def test_a_terminating_pod_keeps_its_token_a_little_longer() -> None:
    world = World()
    token = world.issue(**BOUND)
    world.pod["metadata"]["deletionTimestamp"] = render(NOW)
    world.who(token, NOW + timedelta(seconds=59))
    assert world.refused(token, NOW + timedelta(seconds=60))


def forged(world: World, how: str) -> str:
    claims = jwt.decode(world.issue(), options={"verify_signature": False})
    match how:
        case "another key":
            return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
        case "no signature":
            return jwt.encode(claims, None, algorithm="none")
        case "another issuer":
            return jwt.encode({**claims, "iss": "https://elsewhere"}, world.key, algorithm="ES256")
        case "another subject":
            return jwt.encode({**claims, "sub": "system:serviceaccount:x:y"}, world.key, algorithm="ES256")
        case "the public key as a shared secret":
            import hashlib
            import hmac
            from base64 import urlsafe_b64encode

            public = world.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            head = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
            body = world.issue().split(".")[1]
            mark = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
            return f"{head}.{body}.{urlsafe_b64encode(mark).rstrip(b'=').decode()}"
    return "not.a.token"


@pytest.mark.parametrize(
    "how",
    ["another key", "no signature", "another issuer", "another subject", "the public key as a shared secret", "noise"],
)
def test_forgeries_are_refused(how: str) -> None:
    world = World()
    assert world.refused(forged(world, how))


@pytest.mark.parametrize(
    ("spec", "reason", "text"),
    [
        ({"expirationSeconds": 10}, "Invalid", "may not specify a duration less than 10 minutes"),
        ({"boundObjectRef": {"kind": "Deployment", "name": "x"}}, "Invalid", "Unsupported value"),
        ({"boundObjectRef": {"kind": "Pod", "name": "gone"}}, "NotFound", 'pods "gone" not found'),
        ({"boundObjectRef": {"kind": "Pod", "name": "web-1", "uid": "u-old"}}, "Conflict", "does not match the UID"),
    ],
)
def test_token_requests_that_are_refused(spec: dict[str, Any], reason: str, text: str) -> None:
    with pytest.raises(ApiError, match=text) as error:
        World().issue(**spec)
    assert error.value.reason == reason


def test_a_token_for_a_pod_of_another_account_is_refused() -> None:
    world = World()
    world.documents.put("", "pods", pod(serviceAccountName="default"))
    with pytest.raises(ApiError, match="runs as service account default"):
        world.issue(**BOUND)


ALICE = UserInfo(name="alice", groups=("system:authenticated",))


def test_impersonation_asks_for_every_part() -> None:
    asked: list[tuple[str, str, str]] = []

    def authorize(user: UserInfo, route: Route) -> None:
        assert user is ALICE and route.verb == "impersonate"
        asked.append((route.plural, route.subresource, route.name))

    headers = [
        ("Impersonate-User", "bob"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Extra-Scopes", "view"),
        ("Accept", "x"),
    ]
    acted = impersonate(ALICE, headers, authorize)
    assert acted == UserInfo(name="bob", groups=("dev", "system:authenticated"), extra={"scopes": ("view",)})
    assert asked == [("users", "", "bob"), ("groups", "", "dev"), ("userextras", "scopes", "view")]


def test_a_service_account_is_impersonated_with_its_groups() -> None:
    acted = impersonate(ALICE, [("Impersonate-User", "system:serviceaccount:ns:sa")], lambda user, route: None)
    assert acted.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")


def test_impersonating_nobody_is_a_mistake_and_no_header_costs_nothing() -> None:
    assert impersonate(ALICE, [("Accept", "x")], lambda user, route: None) is ALICE
    with pytest.raises(ApiError, match="without impersonating a user"):
        impersonate(ALICE, [("Impersonate-Group", "system:masters")], lambda user, route: None)
