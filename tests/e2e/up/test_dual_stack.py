"""A cluster with an address of each family for everything: pods, nodes, Services of every sort, names."""

import ipaddress
import json

import pytest
from tests.e2e.up.conftest import Home, eventually

pytestmark = pytest.mark.timeout(240)

OBJECTS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: localhost/host
        command: [python3, -m, http.server, "8000", --bind, "::"]
        readinessProbe: {httpGet: {port: 8000, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8000}]
"""
CONNECT = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).getpeername()[0])"
RESOLVE = "import socket, sys; print(*sorted({i[4][0] for i in socket.getaddrinfo(sys.argv[1], 80)}))"
NAMESERVERS = "print(*(line for line in open('/etc/resolv.conf') if line.startswith('nameserver')), sep='')"
NAME = "web.default.svc.cluster.local"


def families(addresses: list[str]) -> list[int]:
    return [ipaddress.ip_address(address).version for address in addresses]


def test_pods_reach_each_other_and_services_by_either_family(home: Home) -> None:
    home.up("dual", "--dual-stack")
    home.kubectl("dual", "apply", "-f", "-", stdin=OBJECTS)
    home.kubectl("dual", "rollout", "status", "daemonset/web", "--timeout=60s")
    home.until_programmed("dual", "web", endpoints=2, slices=2)

    def get(*what: str) -> list[dict[str, object]]:
        found = json.loads(home.kubectl("dual", "get", *what, "-o", "json"))
        return list(found["items"]) if "items" in found else [found]

    nodes = get("nodes")
    assert [families([a["address"] for a in node["status"]["addresses"][:2]]) for node in nodes] == [[4, 6], [4, 6]]
    pods = get("pods", "-l", "app=web")
    addresses = {
        pod["metadata"]["name"]: [entry["ip"] for entry in pod["status"]["podIPs"]]  # type: ignore[index]
        for pod in pods
    }
    assert [families(found) for found in addresses.values()] == [[4, 6], [4, 6]]
    slices = get("endpointslices", "-l", "kubernetes.io/service-name=web")
    assert sorted(str(part["addressType"]) for part in slices) == ["IPv4", "IPv6"]

    def from_pod(pod: str, code: str, *words: str) -> str:
        return home.kubectl("dual", "exec", pod, "--", "python3", "-c", code, *words).strip()

    one, other = addresses
    for address in addresses[other]:
        assert from_pod(one, CONNECT, address, "8000") == address

    (service,) = get("service", "web")
    cluster_ips: list[str] = service["spec"]["clusterIPs"]  # type: ignore[index]
    assert families(cluster_ips) == [4, 6]
    assert from_pod(one, RESOLVE, "web") == " ".join(sorted(cluster_ips))
    (dns,) = get("service", "kube-dns", "-n", "kube-system")
    asked: list[str] = dns["spec"]["clusterIPs"]  # type: ignore[index]
    assert families(asked) == [4, 6]
    assert [line.split()[1] for line in from_pod(one, NAMESERVERS).splitlines()] == asked
    for server in asked:
        answer = home.kubectl("dual", "exec", one, "--", "dig", "+short", f"@{server}", NAME, "AAAA").strip()
        assert answer == cluster_ips[1]
    for address in cluster_ips:
        assert from_pod(one, CONNECT, address, "80") == address
        reached = home.run("shell", "--name", "dual", "--", "python3", "-c", CONNECT, address, "80")
        assert reached.stdout.strip() == address, reached.stderr

    def balanced() -> list[str]:
        (found,) = get("service", "web")
        ingress = found["status"]["loadBalancer"].get("ingress", [])  # type: ignore[index]
        return [entry["ip"] for entry in ingress]

    eventually(lambda: families(balanced()) == [4, 6])
    node_port: int = service["spec"]["ports"][0]["nodePort"]  # type: ignore[index]
    outside = [(address, 80) for address in balanced()]
    outside += [(entry["address"], node_port) for node in nodes for entry in node["status"]["addresses"][:2]]
    for address, port in outside:

        def reaches(address: str = address, port: int = port) -> bool:
            done = home.run("shell", "--name", "dual", "--", "python3", "-c", CONNECT, address, str(port))
            return done.stdout.strip() == address

        eventually(reaches)

    # An agent that comes again finds its pods with both.
    home.run("shell", "--name", "dual", "--", "kill", "-9", str(home.status("dual")["processes"]["agent-n1"]["pid"]))
    eventually(lambda: home.status("dual")["processes"]["agent-n1"]["restarts"] == 1)
    eventually(lambda: home.status("dual")["processes"]["agent-n1"]["phase"] == "ready")
    for name, held in addresses.items():
        (pod,) = get("pod", name)
        assert [entry["ip"] for entry in pod["status"]["podIPs"]] == held  # type: ignore[index]
        for address in held:
            assert from_pod(name, CONNECT, address, "8000") == address

    assert home.run("down", "--name", "dual").returncode == 0
    home.assert_nothing_left("dual")
