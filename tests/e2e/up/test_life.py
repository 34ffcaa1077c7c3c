"""A cluster's life: up, use, restart of a part, down, up again; and every way it can end."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.up.conftest import Home, eventually, kill

pytestmark = pytest.mark.timeout(240)

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: localhost/host
        command: [python3, -m, http.server, "8000"]
        readinessProbe: {httpGet: {port: 8000, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
"""
FETCH = "import urllib.request as u; print(u.urlopen('http://web/', timeout=5).status)"


def test_a_whole_life(home: Home) -> None:
    home.up("life")
    nodes = json.loads(home.kubectl("life", "get", "nodes", "-o", "json"))["items"]
    assert sorted(node["metadata"]["name"] for node in nodes) == ["n1", "n2"]

    status = home.run("status", "--name", "life", "-o", "json")
    assert status.returncode == 0, status.stdout + status.stderr
    document = json.loads(status.stdout)
    assert document["ready"]
    eventually(lambda: {"proxy-n1", "proxy-n2", "dns-n1", "dns-n2"} <= home.lags("life").keys())
    assert home.run("kubeconfig", "--name", "life").stdout.strip() == str(home.layout("life").kubeconfig)
    assert "life" in home.run("ls").stdout

    # A Service by its name, through DNS and proxy of a node, to pods on the host's file system.
    home.kubectl("life", "apply", "-f", "-", stdin=WEB)
    home.kubectl("life", "rollout", "status", "deployment/web", "--timeout=60s")
    home.until_programmed("life", "web", endpoints=2)
    assert home.run("shell", "--name", "life", "--", "python3", "-c", FETCH).stdout.strip() == "200"
    assert home.run("shell", "--name", "life", "--node", "n2", "--", "python3", "-c", FETCH).stdout.strip() == "200"
    assert home.run("shell", "--name", "life", "--", "sh", "-c", "exit 7").returncode == 7
    inside = home.run("shell", "--name", "life", "--", "kubectl", "get", "--raw", "/readyz")
    assert inside.stdout == "ok", inside.stderr

    # A part that is killed comes back, and nothing is lost.
    victim = home.status("life")["processes"]["dns-n1"]["pid"]
    home.run("shell", "--name", "life", "--", "kill", "-9", str(victim))
    eventually(lambda: home.status("life")["processes"]["dns-n1"]["restarts"] == 1)
    eventually(lambda: home.status("life")["processes"]["dns-n1"]["phase"] == "ready")
    eventually(lambda: home.run("status", "--name", "life").returncode == 0)

    again = home.run("up", "--name", "life", "--detach")
    assert again.returncode == 1
    assert again.stderr.strip() == "pilotage: cluster life is already running; `pilotage down --name life` stops it"

    started = time.monotonic()
    assert home.run("down", "--name", "life").returncode == 0
    assert time.monotonic() - started < 20  # 2 s on an idle machine; a busy one runs other tests beside this
    home.assert_nothing_left("life")
    assert home.run("down", "--name", "life").returncode == 1

    # Objects and pods come back from the data directory.
    home.up("life")
    home.kubectl("life", "rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: home.run("shell", "--name", "life", "--", "python3", "-c", FETCH).stdout.strip() == "200")


def test_two_clusters_side_by_side(home: Home) -> None:
    home.up("one", "--nodes", "1")
    home.up("two", "--nodes", "1")
    assert home.status("one")["ports"]["api"] != home.status("two")["ports"]["api"]
    home.kubectl("one", "create", "configmap", "only-here")
    assert "only-here" not in home.kubectl("two", "get", "configmaps", "-o", "name")
    assert home.run("down", "--all").returncode == 0
    home.assert_nothing_left("one", "two")


def test_a_killed_supervisor_takes_everything_along(home: Home) -> None:
    home.up("dead", "--nodes", "1")
    kill(home.status("dead")["supervisor"])
    assert home.run("down", "--name", "dead").returncode == 0
    home.assert_nothing_left("dead")


@pytest.mark.parametrize("step", ["fabric", "apiserver"])
def test_ctrl_c_in_the_middle_of_a_start_leaves_nothing(home: Home, step: str) -> None:
    with home.start("up", "--name", "half") as starting:
        assert starting.stderr is not None
        while step not in starting.stderr.readline():
            assert starting.poll() is None
        home.seen.add(os.readlink(f"/proc/{home.status('half')['zygote']['pid']}/ns/net"))
        starting.send_signal(signal.SIGINT)
        assert starting.wait(20) == 130
    home.assert_nothing_left("half")


def test_a_port_given_by_hand_that_is_taken_is_one_clear_line(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = home.run("up", "--name", "port", "--api-port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"pilotage: port {port} for api is not free (Address already in use): choose another with --api-port\n"
    )
    home.assert_nothing_left("port")


def test_a_mistake_in_the_config_is_one_line_with_its_place(home: Home, tmp_path: Path) -> None:
    config = tmp_path / "cluster.yaml"
    config.write_text("name: conf\nnode: 2\n")
    done = home.run("up", "--config", str(config))
    assert (done.returncode, done.stderr) == (2, f"pilotage: {config}:2: unknown key `node`\n")


def test_commands_on_a_cluster_that_is_not_there_say_so(home: Home) -> None:
    for command in ("kubeconfig", "status", "shell"):
        done = home.run(command, "--name", "nobody")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "no cluster named nobody" in done.stderr


def test_no_packet_leaves_the_fabric(home: Home) -> None:
    home.up("sealed", "--nodes", "1")
    routes = home.run("shell", "--name", "sealed", "--", "ip", "route", "get", "192.0.2.1")
    assert "unreachable" in routes.stderr.lower()
    assert subprocess.run(["ip", "route", "show", "10.89.0.0/16"], capture_output=True, check=True).stdout == b""
