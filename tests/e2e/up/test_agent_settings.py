"""What a configuration says about agents, on a cluster of its own: static pods, room for pods, and how pods end."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.up.conftest import Home, eventually

pytestmark = pytest.mark.timeout(240)

STATIC = """
apiVersion: v1
kind: Pod
metadata: {name: beacon}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: localhost/host, command: [sleep, "1000"]}
"""
LAST_WORDS = "trap 'sleep 1; echo gone > /out/word; exit 0' TERM; touch /out/ready; while :; do sleep 0.1; done"


def one_that_says_goodbye(place: Path) -> str:
    container = {
        "name": "c",
        "image": "localhost/host",
        "command": ["sh", "-c", LAST_WORDS],
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "out", "hostPath": {"path": str(place)}}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "polite"}, "spec": spec})


def test_static_pods_run_on_every_node_and_pods_are_given_time_to_end(home: Home) -> None:
    static, out = home.path / "static", home.path / "out"
    static.mkdir()
    out.mkdir(mode=0o777)
    (static / "beacon.yaml").write_text(STATIC)
    config = home.path / "cluster.yaml"
    config.write_text(
        f"agent: {{staticPodPath: {static}, maxPods: 7, shutdownGraceSeconds: 10, kubeReserved: {{cpu: 100m}}}}\n"
        "nodes:\n- zone: a\n- agent: {maxPods: 5}\n"
    )
    home.up("settled", "--config", str(config))

    def pods() -> dict[str, Any]:
        found = json.loads(home.kubectl("settled", "get", "pods", "-o", "json"))["items"]
        return {pod["metadata"]["name"]: pod["status"].get("phase") for pod in found}

    eventually(lambda: pods() == {"beacon-n1": "Running", "beacon-n2": "Running"})
    nodes = json.loads(home.kubectl("settled", "get", "nodes", "-o", "json"))["items"]
    assert {node["metadata"]["name"]: node["status"]["capacity"]["pods"] for node in nodes} == {"n1": "7", "n2": "5"}
    assert all(node["status"]["allocatable"]["cpu"].endswith("900m") for node in nodes)

    (static / "beacon.yaml").unlink()
    eventually(lambda: pods() == {})

    home.kubectl("settled", "apply", "-f", "-", stdin=one_that_says_goodbye(out))
    eventually(lambda: pods() == {"polite": "Running"} and (out / "ready").exists())
    assert home.run("down", "--name", "settled").returncode == 0
    assert (out / "word").read_text() == "gone\n"
    home.assert_nothing_left("settled")

    home.up("settled", "--config", str(config))
    pod = json.loads(home.kubectl("settled", "get", "pod", "polite", "-o", "json"))["status"]
    assert (pod["phase"], pod["reason"]) == ("Failed", "Terminated")


def test_a_second_down_ends_a_shutdown_at_once(home: Home) -> None:
    config = home.path / "cluster.yaml"
    config.write_text("agent: {shutdownGraceSeconds: 600}\nnodes: 1\n")
    home.up("patient", "--config", str(config))
    stubborn = ["sh", "-c", "trap 'touch /out/asked' TERM; while :; do sleep 0.1; done"]
    pod = json.loads(one_that_says_goodbye(home.path))
    pod["spec"]["containers"][0]["command"] = stubborn
    pod["spec"]["terminationGracePeriodSeconds"] = 600
    home.kubectl("patient", "apply", "-f", "-", stdin=json.dumps(pod))
    home.kubectl("patient", "wait", "pod/polite", "--for=condition=Ready", "--timeout=60s")
    first = home.start("down", "--name", "patient")
    eventually((home.path / "asked").exists)
    assert first.poll() is None
    assert home.run("down", "--name", "patient").returncode == 0  # in less time than the pod was given
    first.communicate(timeout=10)
    home.assert_nothing_left("patient")
