"""Traefik, a client-go program, with its Kubernetes Ingress provider: it lives on streaming lists and watches alone.

It runs in the cluster's network under a ServiceAccount that may do what it needs and no more, and routes to the
addresses in EndpointSlices itself, so what it answers says what it has been told.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import BIN, TIMEOUT_S, Cluster

NAMESPACE = "traefik"
# The ports of a network of the cluster's own, where nothing else listens.
WEB, ADMIN = 18000, 18080

MANIFEST = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: traefik}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: traefik}
rules:
- {apiGroups: [''], resources: [services, secrets, nodes], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses, ingressclasses], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses/status], verbs: [update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: traefik}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: traefik}
subjects: [{kind: ServiceAccount, name: traefik, namespace: traefik}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: traefik}
spec: {controller: traefik.io/ingress-controller}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: localhost/host
        command: [PROGRAM, --http, '8080']
        ports: [{containerPort: 8080, name: web}]
        readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: web, name: web}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site}
spec:
  ingressClassName: traefik
  rules:
  - host: site.test
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: echo, port: {name: web}}}}]
""".replace("PROGRAM", str(BIN / "pilotage-echo"))


# One process for all requests: entering the cluster's network anew for each would take longer than what is tested.
ASKER = """
import http.client, json, sys
for line in sys.stdin:
    host, path, port = json.loads(line)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        found = [answer.status, answer.read().decode()]
    except OSError as error:
        found = [0, str(error)]
    finally:
        connection.close()
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Traefik:
    """The running program, and the cluster it serves."""

    cluster: Cluster
    log: Path
    asker: "subprocess.Popen[str]"  # runs ASKER in the cluster's network

    def kubectl(self, command: str, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *command.split(), *arguments, given=given)

    def ask(self, host: str, path: str = "/", port: int = WEB) -> tuple[int, str]:
        """Status and body; status 0 when nobody answered."""
        assert self.asker.stdin is not None
        assert self.asker.stdout is not None
        self.asker.stdin.write(json.dumps([host, path, port]) + "\n")
        self.asker.stdin.flush()
        status, body = json.loads(self.asker.stdout.readline())
        return status, body

    def eventually(self, what: Callable[[], object], story: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not what():
            assert time.monotonic() < deadline, f"{story}\n{self.log.read_text()[-4_000:]}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def traefik(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    directory = tmp_path_factory.mktemp("traefik")
    log, token, authority = directory / "log", directory / "token", directory / "ca.crt"
    cluster.make_namespace(NAMESPACE)
    cluster.kubectl("apply", "--namespace", NAMESPACE, "--filename", "-", given=MANIFEST)
    cluster.kubectl("wait", "--namespace", NAMESPACE, "deployment/echo", "--for=condition=Available", "--timeout=50s")
    token.write_text(cluster.kubectl("create", "token", "traefik", "--namespace", NAMESPACE))
    authority.write_text(cluster.kubectl("get", "configmap", "kube-root-ca.crt", "--output=jsonpath={.data.ca\\.crt}"))
    configuration = {
        "entryPoints": {"web": {"address": f":{WEB}"}, "admin": {"address": f":{ADMIN}"}},
        "ping": {"entryPoint": "admin"},
        "log": {"level": "DEBUG"},
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "providers": {
            "providersThrottleDuration": "50ms",
            "kubernetesIngress": {
                "endpoint": cluster.kubectl(
                    *("get", "endpoints", "kubernetes", "--namespace=default"),
                    "--output=jsonpath=https://{.subsets[0].addresses[0].ip}:{.subsets[0].ports[0].port}",
                ),
                "token": str(token),
                "certAuthFilePath": str(authority),
                "ingressEndpoint": {"ip": "10.89.0.1"},
                "allowEmptyServices": True,
            },
        },
    }
    (directory / "traefik.yaml").write_text(yaml.safe_dump(configuration))
    # With a KUBECONFIG in its environment it would be the administrator instead.
    command = cluster.inside("env", "-u", "KUBECONFIG", str(BIN / "traefik"), f"--configFile={directory}/traefik.yaml")
    with (
        log.open("wb") as output,
        running(command, cluster, stdout=output, stderr=subprocess.STDOUT),
        running(
            *(cluster.inside(sys.executable, "-c", ASKER), cluster),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as asker,
    ):
        started = Traefik(cluster=cluster, log=log, asker=asker)
        started.eventually(lambda: started.ask("localhost", "/ping", ADMIN) == (200, "OK"), "Traefik never started")
        yield started


@contextmanager
def running(command: list[str], cluster: Cluster, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that ends with the block."""
    with subprocess.Popen(command, env=cluster.environment, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def test_requests_reach_every_pod(traefik: Traefik) -> None:
    traefik.eventually(lambda: traefik.ask("site.test")[0] == 200, "the route was never programmed")
    pods = set(traefik.kubectl("get pods --selector=app=echo -o jsonpath={.items[*].metadata.name}").split())
    answered: set[str] = set()

    def everyone() -> bool:
        _, body = traefik.ask("site.test")
        answered.update(pod for pod in pods if pod in body)
        return answered == pods

    traefik.eventually(everyone, f"only {answered} of {pods} answered")
    assert traefik.ask("other.test")[0] == 404


def test_the_status_of_the_ingress_is_written(traefik: Traefik) -> None:
    address = "get ingress site -o jsonpath={.status.loadBalancer.ingress[0].ip}"
    traefik.eventually(lambda: traefik.kubectl(address) == "10.89.0.1", "the status was never written")
    assert "10.89.0.1" in traefik.kubectl("get ingress site")


def test_changes_of_ingress_and_endpoints_arrive(traefik: Traefik) -> None:
    rule = '[{"op":"replace","path":"/spec/rules/0/host","value":"moved.test"}]'
    traefik.kubectl("patch ingress site --type=json -p", rule)
    traefik.eventually(lambda: traefik.ask("moved.test")[0] == 200, "the new host was never routed")
    traefik.eventually(lambda: traefik.ask("site.test")[0] == 404, "the old host is still routed")
    traefik.kubectl("scale deployment echo --replicas=0")
    traefik.eventually(lambda: traefik.ask("moved.test")[0] == 503, "a service without endpoints still answers")
    traefik.kubectl("scale deployment echo --replicas=1")
    traefik.eventually(lambda: traefik.ask("moved.test")[0] == 200, "the new endpoint was never used")
    traefik.kubectl("delete ingress site")
    traefik.eventually(lambda: traefik.ask("moved.test")[0] == 404, "a deleted ingress is still routed")


def test_no_informer_complained(traefik: Traefik) -> None:
    words = ("reflector", "Failed to watch", "forbidden", "falling back")
    complaints = [line for line in traefik.log.read_text().splitlines() if any(word in line for word in words)]
    assert complaints == []
