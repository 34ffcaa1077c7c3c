"""The real kubectl on a custom resource: defined, explained, applied both ways, scaled, watched, gone."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pilotage.testing.cluster import api_server

Kubectl = Callable[..., Awaitable[str]]

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.harbour.test}
spec:
  group: harbour.test
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.sails, statusReplicasPath: .status.sails}
    additionalPrinterColumns:
    - {name: Sails, type: integer, jsonPath: .spec.sails}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A boat is what floats.
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "!has(self.motor) || self.sails == 0", message: a boat has sails or a motor}
            properties:
              sails: {type: integer, description: How many sails it has., default: 1, maximum: 9}
              motor: {type: boolean}
              crew:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, rank: {type: string}}
          status:
            type: object
            properties: {sails: {type: integer}}
"""
BOAT = """
apiVersion: harbour.test/v1
kind: Boat
metadata: {name: ann}
spec: {sails: %d, crew: [{name: jo, rank: %s}]}
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    local = Path(sys.executable).with_name("kubectl")
    program = str(local) if local.exists() else shutil.which("kubectl")
    assert program is not None, "kubectl is not installed: make dev installs it"
    async with api_server() as server:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": str(server.kubeconfig_path)}

        async def run(command: str, *arguments: str, fails: bool = False, given: str = "") -> str:
            process = await asyncio.create_subprocess_exec(
                program,
                *command.split(),
                *arguments,
                env=environment,
                cwd=tmp_path,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(30):
                output, _ = await process.communicate(given.encode())
            assert (process.returncode != 0) is fails, output.decode()
            return output.decode()

        yield run


async def test_the_life_of_a_custom_resource(kubectl: Kubectl) -> None:
    await kubectl("apply -f -", given=DEFINITION)
    await kubectl("wait --for=condition=Established crd/boats.harbour.test --timeout=5s")
    assert "boats" in await kubectl("api-resources --api-group=harbour.test")
    explained = await kubectl("explain boat.spec")
    assert "How many sails it has." in explained and "crew" in explained

    assert "created" in await kubectl("apply -f -", given=BOAT % (2, "mate"))
    assert "configured" in await kubectl("apply -f -", given=BOAT % (3, "mate"))
    assert "unchanged" in await kubectl("apply -f -", given=BOAT % (3, "mate"))
    assert "sails: 4" in await kubectl("diff -f -", fails=True, given=BOAT % (4, "mate"))
    lines = (await kubectl("get bt")).splitlines()
    assert lines[0].split() == ["NAME", "SAILS", "AGE"] and lines[1].split()[:2] == ["ann", "3"]
    assert "boat.harbour.test/ann" in await kubectl("get all -o name")

    mine = "apply --server-side --field-manager=captain -f -"
    conflict = await kubectl(mine, fails=True, given=BOAT % (3, "captain"))
    assert '.spec.crew[name="jo"].rank' in conflict
    await kubectl(mine, "--force-conflicts", given=BOAT % (3, "captain"))
    rank = "jsonpath={.spec.crew[0].rank}"
    assert await kubectl("get boat ann -o", rank) == "captain"

    assert "scaled" in await kubectl("scale boat ann --replicas=5")
    await kubectl("patch boat ann --type=json -p", '[{"op":"replace","path":"/spec/sails","value":6}]')
    assert await kubectl("get boat ann -o", "jsonpath={.spec.sails}") == "6"
    refused = await kubectl("patch boat ann --type=merge -p", '{"spec":{"motor":true}}', fails=True)
    assert "a boat has sails or a motor" in refused
    unknown = await kubectl("apply -f -", fails=True, given=BOAT.replace("sails", "oars") % (2, "mate"))
    assert 'unknown field "spec.oars"' in unknown
    await kubectl("patch boat ann --subresource=status --type=merge -p", '{"status":{"sails":6}}')
    await kubectl("wait --for=jsonpath={.status.sails}=6 boat/ann --timeout=5s")
    assert "Sails:  6" in await kubectl("describe boat ann")

    await kubectl("delete crd boats.harbour.test --timeout=20s")
    assert "boats" not in await kubectl("api-resources --api-group=harbour.test")
