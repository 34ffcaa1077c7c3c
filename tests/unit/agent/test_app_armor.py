"""AppArmor: who asks for which profile, where the kernel has it and where it has not."""

from typing import Any

import pytest

from pilotage.agent.core import app_armor
from pilotage.agent.core.admission import NodeView, admit
from pilotage.api.core_v1 import AppArmorProfile, Pod

from .builders import make_pod
from .test_container_document import document

LOADED = app_armor.names_in("docker-default (enforce)\nmy (odd) name (complain)\n/usr/sbin/x (enforce)\n")
LOCALHOST = {"type": "Localhost", "localhostProfile": "/usr/sbin/x"}


def asking(pod: Any = None, container: Any = None, annotation: str = "") -> Pod:
    annotations = {f"{app_armor.ANNOTATION}a": annotation} if annotation else {}
    return make_pod(
        {"name": "a", "securityContext": {"appArmorProfile": container}},
        securityContext={"appArmorProfile": pod},
        metadata={"annotations": annotations},
    )


@pytest.mark.parametrize(
    ("pod", "expected", "refused"),
    [
        pytest.param(asking(), "docker-default", False, id="nobody asks: the default where there is one"),
        pytest.param(asking({"type": "Unconfined"}), "", False, id="unconfined"),
        pytest.param(asking({"type": "RuntimeDefault"}), "docker-default", True, id="the pod asks"),
        pytest.param(asking(LOCALHOST, {"type": "Unconfined"}), "", False, id="the container knows better"),
        pytest.param(asking(None, LOCALHOST), "/usr/sbin/x", True, id="a profile of the machine"),
        pytest.param(asking(annotation="localhost/my (odd) name"), "my (odd) name", True, id="an annotation"),
        pytest.param(asking(LOCALHOST, annotation="unconfined"), "", False, id="an annotation against the pod"),
        pytest.param(asking(annotation="runtime/default"), "docker-default", True, id="a default by annotation"),
    ],
)
def test_profiles(pod: Pod, expected: str, refused: bool) -> None:
    assert app_armor.name(app_armor.profile_of(pod, pod.spec.containers[0]), LOADED) == expected
    view = NodeView(name="n1", labels={}, taints=(), allocatable={"pods": "1"}, pods=())
    rejection = admit(pod, view)
    assert (rejection is not None and rejection.reason == "AppArmor") == refused
    enforcing = NodeView(name="n1", labels={}, taints=(), allocatable={"pods": "1"}, pods=(), app_armor=True)
    assert admit(pod, enforcing) is None


def test_a_privileged_container_is_unconfined_unless_it_asks() -> None:
    assert app_armor.name(None, LOADED, privileged=True) == ""
    assert app_armor.name(AppArmorProfile(type="RuntimeDefault"), LOADED, privileged=True) == "docker-default"


@pytest.mark.parametrize("profile", [{"type": "RuntimeDefault"}, LOCALHOST])
def test_a_profile_that_is_not_loaded_is_an_error(profile: dict[str, str]) -> None:
    pod = asking(profile)
    with pytest.raises(KeyError):
        app_armor.name(app_armor.profile_of(pod, pod.spec.containers[0]), frozenset())
    assert app_armor.name(None, frozenset()) == ""


def test_the_document_names_the_profile() -> None:
    process: Any = document(make_pod("a"), app_armor="docker-default")["process"]
    assert process["apparmorProfile"] == "docker-default"
    plain: Any = document(make_pod("a"))["process"]
    assert "apparmorProfile" not in plain
