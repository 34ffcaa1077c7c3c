"""A kopf operator on a resource of its own: finalizers, status, timers, children and events as kopf sees them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cluster import TIMEOUT_S, Cluster

NAMESPACE = "greetings"
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.tests.pilotage.dev}
spec:
  group: tests.pilotage.dev
  scope: Namespaced
  names: {plural: greetings, singular: greeting, kind: Greeting, shortNames: [hi], categories: [letters]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: To, type: string, jsonPath: .spec.to}
    - {name: Phase, type: string, jsonPath: .status.phase}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [to]
            properties:
              to: {type: string, minLength: 1}
              loud: {type: boolean, default: false}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
GREETING = """
apiVersion: tests.pilotage.dev/v1
kind: Greeting
metadata: {name: world}
spec: {to: world}
"""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The cluster in which the operator is at work, and what it has to say."""

    cluster: Cluster
    log: Path

    def kubectl(self, command: str, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, *command.split(), *arguments, given=given)

    def eventually(self, what: Callable[[], object], story: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not what():
            assert time.monotonic() < deadline, f"{story}\n{self.log.read_text()[-6_000:]}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    log = tmp_path_factory.mktemp("kopf") / "log"
    cluster.make_namespace(NAMESPACE)
    cluster.kubectl("apply", "--filename", "-", given=DEFINITION)
    cluster.kubectl("wait", "--for=condition=Established", "crd/greetings.tests.pilotage.dev", "--timeout=20s")
    program = Path(__file__).with_name("greeter.py")
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", NAMESPACE, "--verbose", str(program)]
    environment = cluster.environment | {"KUBECONFIG": str(cluster.kubeconfig)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield Operator(cluster=cluster, log=log)
        finally:
            process.terminate()
            process.wait(30)
    cluster.kubectl("delete", "crd", "greetings.tests.pilotage.dev", "--timeout=30s")


def test_a_greeting_is_created_with_finalizer_status_and_child(operator: Operator) -> None:
    operator.kubectl("apply -f -", given=GREETING)
    phase = "get greeting world -o jsonpath={.status.phase}/{.status.create.letter}/{.metadata.finalizers}/{.spec.loud}"
    wanted = 'Sent/world-letter/["kopf.zalando.org/KopfFinalizerMarker"]/false'
    operator.eventually(lambda: operator.kubectl(phase) == wanted, "the operator did not handle the creation")
    letter = "get configmap world-letter -o jsonpath={.data.text},{.metadata.ownerReferences[0].kind}"
    assert operator.kubectl(letter) == "Hello world,Greeting"
    assert operator.kubectl("get hi").split()[:5] == ["NAME", "TO", "PHASE", "world", "world"]


def test_a_timer_ticks(operator: Operator) -> None:
    ticks = "get greeting world -o jsonpath={.status.ticks}"
    operator.eventually(lambda: operator.kubectl(ticks) == "3", "the timer did not tick")


def test_a_change_is_handled_once_its_watch_was_resumed(operator: Operator) -> None:
    # The operator asked for watches of five seconds; a change must reach it through whichever is open by now.
    operator.kubectl("patch greeting world --type=merge -p", '{"spec":{"to":"moon"}}')
    text = "get configmap world-letter -o jsonpath={.data.text}"
    renamed = "Hello moon, formerly world"
    operator.eventually(lambda: operator.kubectl(text) == renamed, "the operator did not handle the change")
    operator.eventually(
        lambda: operator.kubectl("get greeting world -o jsonpath={.status.phase}") == "Renamed", "no status"
    )
    found = "get events --field-selector=involvedObject.kind=Greeting,reason=Renamed -o jsonpath={.items[*].message}"
    operator.eventually(lambda: operator.kubectl(found) == "from world to moon", "no event was posted")


def test_a_deletion_waits_for_the_operator_and_takes_the_child_along(operator: Operator) -> None:
    operator.kubectl("delete greeting world --timeout=40s")
    assert operator.kubectl("get configmap world-farewell -o name") == "configmap/world-farewell\n"
    gone = "get configmap world-letter --ignore-not-found -o name"
    operator.eventually(lambda: operator.kubectl(gone) == "", "the child was not collected")


def test_the_operator_met_no_error(operator: Operator) -> None:
    log = operator.log.read_text()
    assert "Traceback" not in log and "[ERROR" not in log, log[-6_000:]
