"""The ways into a cluster with addresses of both families: host ports, Ingress, agents, API, checks, forwards."""

import base64
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from tests.e2e.up.conftest import KUBECTL, Home, eventually

from pilotage.apiserver.certificates import Authority

pytestmark = pytest.mark.timeout(240)

SERVE = """
import http.server, os, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["ME"].encode())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(sys.argv[3]))
        super().server_bind()
Server((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""
OBJECTS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1  # the first process of a container heeds no SIGTERM by itself
      containers:
      - name: web
        image: localhost/host
        command: [python3, -c, SERVE, "::", "8000", "0"]
        env:
        - {name: ME, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
        ports:
        - {containerPort: 8000, hostPort: 8081}
        - {containerPort: 8000, hostPort: 8082, hostIP: 0.0.0.0}
        - {containerPort: 8000, hostPort: 8083, hostIP: "::"}
        readinessProbe: {httpGet: {port: 8000, path: /}, periodSeconds: 1}
---
# Who listens on IPv6 alone, and on the loopback: no probe reaches either, for they go to the pod's first address.
apiVersion: v1
kind: Pod
metadata: {name: six, labels: {app: six}}
spec:
  containers:
  - name: six
    image: localhost/host
    command: [python3, -c, SERVE, "::", "8000", "1"]
    env: [{name: ME, value: six}]
  - name: inner
    image: localhost/host
    command: [python3, -c, SERVE, "::1", "8001", "1"]
    env: [{name: ME, value: inner}]
---
apiVersion: v1
kind: Pod
metadata: {name: unseen}
spec:
  containers:
  - name: unseen
    image: localhost/host
    command: [python3, -c, SERVE, "::", "8000", "1"]
    env: [{name: ME, value: unseen}]
    ports: [{containerPort: 8000, hostPort: 8084}]
    readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec:
  ipFamilies: [IPv6]
  selector: {app: six}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  tls: [{hosts: [shop.test], secretName: shop}]
  rules:
  - http:
      paths:
      - {path: /web, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /six, pathType: Prefix, backend: {service: {name: six, port: {number: 80}}}}
"""
NAME = "ways"
FABRIC = ["10.89.0.1", "fd00:10:89::1"]


def url(host: str, port: int, path: str = "/", scheme: str = "http") -> str:
    return f"{scheme}://[{host}]:{port}{path}" if ":" in host else f"{scheme}://{host}:{port}{path}"


class Ways:
    """One cluster and what is asked of it."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def get(self, *what: str) -> Any:
        return json.loads(self.home.kubectl(NAME, "get", *what, "-o", "json"))

    def curl(self, *arguments: str, node: str = "") -> str:
        """What the server says; empty when there is none."""
        where = ("--node", node) if node else ()
        return self.home.run("shell", "--name", NAME, *where, "--", "curl", "-gsm5", *arguments).stdout

    def curl_in(self, pod: str, *arguments: str) -> str:
        return self.home.kubectl(NAME, "exec", pod, "--", "curl", "-gsm5", *arguments)


@pytest.fixture
def ways(home: Home) -> Iterator[Ways]:
    home.up(NAME, "--dual-stack")
    certificate = Authority.load_or_create(home.path / "authority").issue_server("shop", ("shop.test",), ())
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop"},
        "stringData": {"tls.crt": certificate.certificate_pem.decode(), "tls.key": certificate.key_pem.decode()},
    }
    home.kubectl(NAME, "apply", "-f", "-", stdin=json.dumps(secret))
    home.kubectl(NAME, "apply", "-f", "-", stdin=OBJECTS.replace("SERVE", json.dumps(SERVE)))
    home.kubectl(NAME, "rollout", "status", "daemonset/web", "--timeout=60s")
    home.kubectl(NAME, "wait", "--for=condition=Ready", "pod/six", "--timeout=60s")
    home.until_programmed(NAME, "web", endpoints=2, slices=2)
    yield Ways(home)
    assert home.run("down", "--name", NAME).returncode == 0
    home.assert_nothing_left(NAME)


def test_every_way_in_is_open_to_both_families(ways: Ways) -> None:
    nodes = {
        node["metadata"]["name"]: [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        for node in ways.get("nodes")["items"]
    }
    assert nodes == {"n1": ["10.89.0.11", "fd00:10:89::b"], "n2": ["10.89.0.12", "fd00:10:89::c"]}
    pods = {pod["spec"]["nodeName"]: pod for pod in ways.get("pods", "-l", "app=web")["items"]}
    for node, pod in pods.items():
        assert [one["ip"] for one in pod["status"]["hostIPs"]] == nodes[node]
    check_host_ports(ways, nodes, {node: pod["metadata"]["name"] for node, pod in pods.items()})
    check_ingress(ways)
    check_servers(ways, nodes)
    check_health(ways, nodes)
    check_probes(ways)
    check_forward(ways)


def check_host_ports(ways: Ways, nodes: dict[str, list[str]], pods: dict[str, str]) -> None:
    for node, addresses in nodes.items():
        said = ",".join(addresses)  # what the pod on that node answers
        four, six = addresses
        other = "n2" if node == "n1" else "n1"
        open_, closed = [(four, 8081), (six, 8081), (four, 8082), (six, 8083)], [(six, 8082), (four, 8083)]
        for address, port in open_:
            assert ways.curl(url(address, port)) == said, (address, port)
        for address, port in closed:
            assert ways.curl(url(address, port)) == "", (address, port)
        for address in addresses:
            assert ways.curl(url(address, 8081), node=node) == said  # from the node itself
            assert ways.curl(url(address, 8081), node=other) == said
            assert ways.curl_in(pods[other], url(address, 8081)) == said
            assert ways.curl_in(pods[node], url(address, 8081)) == said  # from itself
    unseen = ways.get("pod", "unseen")
    four, six = nodes[unseen["spec"]["nodeName"]]
    eventually(lambda: ways.curl(url(six, 8084)) == "unseen")
    assert ways.curl_in("unseen", url(six, 8084)) == "unseen"  # from itself, and no Service does that for it
    assert ways.curl(url(four, 8084)) == ""  # it listens on IPv6 alone
    # A host port goes with its pod.
    ways.home.kubectl(NAME, "patch", "daemonset", "web", "-p", json.dumps(_without_host_ports()))
    ways.home.kubectl(NAME, "rollout", "status", "daemonset/web", "--timeout=60s")
    for addresses in nodes.values():
        for address in addresses:
            eventually(lambda address=address: ways.curl(url(address, 8081)) == "")
    ways.home.until_programmed(NAME, "web", endpoints=2, slices=2)


def _without_host_ports() -> Any:
    container = {"name": "web", "ports": [{"$patch": "replace"}]}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def check_ingress(ways: Ways) -> None:
    def published() -> list[str]:
        found = ways.get("ingress", "shop")["status"]["loadBalancer"].get("ingress", [])
        return [entry["ip"] for entry in found]

    eventually(lambda: published() == FABRIC)
    for address in published():
        pinned = ("-k", "--resolve", f"shop.test:443:{address}")
        for path, said in (("/web", "10.89.0."), ("/six", "six")):
            # The gateway hears of endpoints after their pods are ready; one program has no probe to say that it serves.
            eventually(lambda address=address, path=path, said=said: ways.curl(url(address, 80, path)).startswith(said))
            assert ways.curl("-H", "Host: any.test", url(address, 80, path)).startswith(said)
            assert ways.curl(*pinned, f"https://shop.test{path}").startswith(said)
            assert ways.curl(url(address, 80, path), node="n1").startswith(said)


def check_servers(ways: Ways, nodes: dict[str, list[str]]) -> None:
    """The agents and the API server, with certificates for the address asked; the Service `kubernetes` has one."""
    config = yaml.safe_load(ways.home.layout(NAME).kubeconfig.read_text())
    authority = ways.home.path / "ca.crt"
    authority.write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    for address in (address for addresses in nodes.values() for address in addresses):
        assert ways.curl("--cacert", str(authority), url(address, 10250, "/healthz", "https")) == "ok"
    for address in FABRIC:
        assert ways.curl("--cacert", str(authority), url(address, 6443, "/readyz", "https")) == "ok"
    spec = ways.get("service", "kubernetes")["spec"]
    assert (spec["ipFamilyPolicy"], spec["ipFamilies"], spec["clusterIPs"]) == ("SingleStack", ["IPv4"], ["10.96.0.1"])
    (part,) = ways.get("endpointslices", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    assert part["endpoints"][0]["addresses"] == ["10.89.0.1"]


def check_health(ways: Ways, nodes: dict[str, list[str]]) -> None:
    port = ways.get("service", "web")["spec"]["healthCheckNodePort"]
    for address in (address for addresses in nodes.values() for address in addresses):
        assert json.loads(ways.curl(url(address, port)))["localEndpoints"] == 1


def check_probes(ways: Ways) -> None:
    """They go to the pod's first address, as in Kubernetes: who does not listen there is not ready."""
    address = ways.get("pod", "unseen")["status"]["podIP"]
    expected = f"Readiness probe failed: dial tcp {address}:8000: connect: connection refused"

    def told() -> bool:
        events = ways.get("events", "--field-selector", "involvedObject.name=unseen,reason=Unhealthy")["items"]
        return any(event["message"] == expected for event in events)

    eventually(told)


def check_forward(ways: Ways) -> None:
    """To the pod's loopback, of the family that a server listens in."""
    for port, said in ((8000, b"six"), (8001, b"inner")):
        with forwarded(ways, f"{port}") as local, socket.create_connection(("127.0.0.1", local), 5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answer.endswith(b"\r\n\r\n" + said)


@contextmanager
def forwarded(ways: Ways, port: str) -> Iterator[int]:
    command = [KUBECTL, "--kubeconfig", str(ways.home.layout(NAME).kubeconfig), "port-forward", "pod/six", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
            assert said is not None
            yield int(said[1])
        finally:
            process.terminate()
