"""Credentials of registries, and when an image is fetched."""

import base64
import json
from typing import Any

import pytest

from pilotage.agent.core import image_name, pull_secrets
from pilotage.agent.core.image_name import Pull
from pilotage.api.codec import convert
from pilotage.api.core_v1 import Secret

from .builders import Life, make_pod, starts, told, waiting_reason


def secret(key: str, document: Any) -> Secret:
    text = document if isinstance(document, str) else json.dumps(document)
    return convert(Secret, {"metadata": {"name": "s"}, "data": {key: base64.b64encode(text.encode()).decode()}})


def auths(*secrets: Secret) -> Any:
    found = pull_secrets.auth_file(secrets)
    return json.loads(found)["auths"] if found is not None else None


PAIR = base64.b64encode(b"me:open sesame").decode()


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(
            secret(".dockerconfigjson", {"auths": {"r.test": {"auth": PAIR}}}), {"r.test": {"auth": PAIR}}, id="auth"
        ),
        pytest.param(
            secret(".dockerconfigjson", {"auths": {"r.test:5000": {"username": "me", "password": "open sesame"}}}),
            {"r.test:5000": {"auth": PAIR}},
            id="user and password",
        ),
        pytest.param(secret(".dockercfg", {"r.test": {"auth": PAIR}}), {"r.test": {"auth": PAIR}}, id="the old shape"),
        pytest.param(
            secret(".dockerconfigjson", {"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}}),
            {"docker.io": {"auth": PAIR}},
            id="the hub's old name",
        ),
        pytest.param(secret(".dockerconfigjson", "no json"), None, id="no JSON"),
        pytest.param(secret(".dockerconfigjson", {"auths": []}), None, id="another shape"),
        pytest.param(secret("password", "x"), None, id="another secret"),
    ],
)
def test_secrets_become_one_file(one: Secret, expected: Any) -> None:
    assert auths(one) == expected


def test_the_first_secret_that_names_a_registry_wins() -> None:
    first = secret(".dockerconfigjson", {"auths": {"a.test": {"auth": "MQ=="}}})
    second = secret(".dockerconfigjson", {"auths": {"a.test": {"auth": "Mg=="}, "b.test": {"auth": "Mg=="}}})
    assert auths(first, second) == {"a.test": {"auth": "MQ=="}, "b.test": {"auth": "Mg=="}}


DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize("present", [True, False], ids=["present", "absent"])
@pytest.mark.parametrize(
    ("image", "policy", "effective"),
    [
        ("r.test/a:1", "", "IfNotPresent"),
        ("r.test/a", "", "Always"),
        ("r.test/a:latest", "", "Always"),
        (f"r.test/a{DIGEST}", "", "IfNotPresent"),
        (f"r.test/a:latest{DIGEST}", "", "IfNotPresent"),
        ("r.test/a:1", "Always", "Always"),
        ("r.test/a", "IfNotPresent", "IfNotPresent"),
        ("r.test/a", "Never", "Never"),
    ],
)
def test_pull_policy_matrix(image: str, policy: str, effective: str, present: bool) -> None:
    expected = {
        ("Always", True): Pull.FETCH,
        ("Always", False): Pull.FETCH,
        ("IfNotPresent", True): Pull.USE,
        ("IfNotPresent", False): Pull.FETCH,
        ("Never", True): Pull.USE,
        ("Never", False): Pull.REFUSE,
    }
    assert image_name.decide(image_name.parse(image), policy, present=present) is expected[effective, present]


def test_only_registries_of_this_machine_may_speak_plain_http() -> None:
    for name in ("127.0.0.1:5000/a", "localhost:5000/a", "127.1.2.3/a"):
        assert image_name.is_loopback(image_name.parse(name))
    for name in ("a", "127.0.0.1.example.org/a", "localhost.example.org/a", "r.test:127/a"):
        assert not image_name.is_loopback(image_name.parse(name))


def test_a_pull_that_fails_is_tried_again_after_ten_seconds_doubling_to_five_minutes() -> None:
    life = Life(make_pod({"name": "a", "image": "r.test/a:1"}))
    life.bring_up()
    delays = []
    for _ in range(7):
        life.refused("a", "ErrImagePull")
        failed_at = life.now
        assert waiting_reason(life.status()) == "ErrImagePull"
        assert told(life.step(after_s=1)) == [("BackOff", 'Back-off pulling image "r.test/a:1"')]
        assert waiting_reason(life.status()) == "ImagePullBackOff"
        assert life.wake_at is not None
        delays.append(life.wake_at - failed_at)
        assert starts(life.step(after_s=life.wake_at - life.now)) == ["a"]
    assert delays == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert life.state.record("a").attempt == 0
