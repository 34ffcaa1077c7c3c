"""A file becomes a pod of the node, and an object that shows it."""

import pytest

from pilotage.agent.core import qos, static_pod
from pilotage.agent.core.static_pod import StaticPod, StaticPodError

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers: [{name: c, image: localhost/host, command: [serve]}]
"""


def read(text: str, *, path: str = "/etc/pods/web.yaml", node: str = "n1", seen: str = "now") -> StaticPod:
    return static_pod.read(text.encode(), path=path, node=node, seen=seen)


def test_name_uid_and_place_follow_from_file_and_node() -> None:
    one = read(POD)
    metadata = one.pod.metadata
    assert (metadata.name, metadata.namespace) == ("web-n1", "default")
    assert one.pod.spec.node_name == "n1"
    assert [(one.operator, one.effect) for one in one.pod.spec.tolerations] == [("Exists", "NoExecute")]
    assert metadata.annotations["kubernetes.io/config.source"] == "file"
    assert metadata.annotations["kubernetes.io/config.hash"] == metadata.uid
    assert qos.is_critical(one.pod)
    # The same file gives the same pod, whenever it is read.
    assert read(POD, seen="later").pod.metadata.uid == metadata.uid
    assert read(POD, node="n2").pod.metadata.uid != metadata.uid
    assert read(POD, path="/etc/pods/other.yaml").pod.metadata.uid != metadata.uid
    assert read(POD.replace("serve", "work")).pod.metadata.uid != metadata.uid


def test_its_mirror_carries_the_hash_and_belongs_to_the_node() -> None:
    one = read(POD)
    shown = static_pod.mirror(one, node="n1", node_uid="abc")
    assert "uid" not in shown["metadata"]
    assert shown["metadata"]["annotations"]["kubernetes.io/config.mirror"] == one.pod.metadata.uid
    (owner,) = shown["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "abc", "controller": True}
    assert shown["spec"] == one.document["spec"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("", "must hold one object, holds 0", id="nothing"),
        pytest.param(f"{POD}---{POD}", "must hold one object, holds 2", id="two"),
        pytest.param("{", "cannot be parsed", id="torn"),
        pytest.param(POD.replace("kind: Pod", "kind: Service"), "must be a v1 Pod, is v1 Service", id="another kind"),
        pytest.param(POD.replace("name: web", "labels: {}"), "metadata.name", id="no name"),
        pytest.param(POD.replace("name: c,", ""), "spec.containers[0].name", id="no container name"),
        pytest.param(POD.replace("[serve]", "serve"), "cannot be handled", id="another type"),
        pytest.param(
            POD + "  serviceAccountName: robot\n", "spec.serviceAccountName: a static pod may not refer", id="account"
        ),
        pytest.param(POD + "  volumes: [{name: v, secret: {secretName: s}}]\n", "spec.volumes[0].secret", id="secret"),
        pytest.param(
            POD.replace("command: [serve]", "envFrom: [{configMapRef: {name: m}}]"),
            "spec.containers[0].envFrom[0].configMapRef",
            id="configuration",
        ),
    ],
)
def test_what_is_no_static_pod_is_named(text: str, complaint: str) -> None:
    with pytest.raises(StaticPodError) as caught:
        read(text)
    assert complaint in str(caught.value)
