"""Pods with users of their own on a whole cluster: ids differ over all nodes, and nothing a pod needs is missing."""

import json
import os
from typing import Any

import pytest
from tests.e2e.up.conftest import Home, eventually

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.getuid() != 0, reason="without root there are no ids to give"),
]

SERVE = "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()"
FETCH = "import urllib.request as u; print(u.urlopen('http://apart/', timeout=5).status)"


def documents() -> str:
    container = {
        "name": "c",
        "image": "localhost/host",
        "command": ["python3", "-c", SERVE],
        "workingDir": "/srv",
        "tty": True,
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
    }
    spec: dict[str, Any] = {"hostUsers": False, "terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": {"app": "apart"}}, "spec": spec}
    selector = {"matchLabels": {"app": "apart"}}
    daemons = {"selector": selector, "template": template}
    service = {"selector": {"app": "apart"}, "ports": [{"port": 80}]}
    items = [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "apart"}, "spec": daemons},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "apart"}, "spec": service},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def test_every_pod_of_a_cluster_has_ids_of_its_own(home: Home) -> None:
    home.up("apart")
    home.kubectl("apart", "apply", "-f", "-", stdin=documents())
    home.kubectl("apart", "rollout", "status", "daemonset/apart", "--timeout=60s")
    home.until_programmed("apart", "apart", endpoints=2)
    names = home.kubectl("apart", "get", "pods", "-o", "name").split()
    maps = [home.kubectl("apart", "exec", name, "--", "cat", "/proc/self/uid_map").split() for name in names]
    assert len(maps) == 2
    assert {(inside, count) for inside, _, count in maps} == {("0", "65536")}
    assert "0" not in {outside for _, outside, _ in maps}
    assert len({outside for _, outside, _ in maps}) == 2
    # The service account's token, the cluster's DNS, a low port, another node.
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert home.kubectl("apart", "exec", names[0], "--", "stat", "-c", "%u", token).strip() == "0"
    assert home.kubectl("apart", "exec", names[0], "--", "python3", "-c", FETCH).strip() == "200"
    home.kubectl("apart", "delete", "daemonset/apart")
    eventually(lambda: home.kubectl("apart", "get", "pods", "-o", "name") == "")
    assert home.run("down", "--name", "apart").returncode == 0
    home.assert_nothing_left("apart")
