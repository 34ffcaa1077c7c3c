"""kubectl's `create` commands send protobuf; what the server stores must be what kubectl says it meant.

The oracle is kubectl itself: `--dry-run=client -o json` prints the object that the same command sends.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pilotage.testing.cluster import ApiServer, api_server

COMMANDS = [
    "create deployment web --image=registry.test/web:1 --port=80 --replicas=2",
    "create secret generic s --from-literal=user=a --from-literal=empty=",
    "create configmap c --from-literal=a=b",
    "create service clusterip q --tcp=80:http --tcp=81:8081",
    "create service externalname x --external-name=legacy.example.test",
    "create quota q --hard=pods=2,requests.cpu=100m,limits.memory=1Gi --scopes=NotTerminating",
    "create job j --image=a -- sleep 1",
    "create cronjob c --image=a --schedule=*/5\u00a0*\u00a0*\u00a0*\u00a0*",
    "create ingress i --rule=a.test/b*=s:http,tls=t --annotation=k=v --default-backend=d:80",
    "create role r --verb=get,list --resource=pods,deployments.apps",
    "create poddisruptionbudget p --selector=app=web --min-available=50%",
    "create priorityclass high --value=1000 --preemption-policy=Never",
    "create namespace other",
]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ApiServer]:
    async with api_server() as running:
        yield running


async def kubectl(server: ApiServer, command: str, *more: str) -> str:
    words = [word.replace("\u00a0", " ") for word in command.split(" ")]
    process = await asyncio.create_subprocess_exec(
        "kubectl",
        *words[:2],
        *more,
        *words[2:],
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return output.decode()


def missing(meant: Any, stored: Any, path: str = "") -> list[str]:
    """What is meant but not stored; the server may add defaults, never lose or change."""
    if isinstance(meant, dict):
        found = []
        for key, value in meant.items():
            if value in (None, {}, ""):
                continue
            if not isinstance(stored, dict) or key not in stored:
                found.append(f"{path}.{key}")
            else:
                found += missing(value, stored[key], f"{path}.{key}")
        return found
    if isinstance(meant, list):
        if not isinstance(stored, list) or len(stored) != len(meant):
            return [path]
        return [
            item for i, pair in enumerate(zip(meant, stored, strict=True)) for item in missing(*pair, f"{path}[{i}]")
        ]
    return [] if meant == stored else [f"{path}: {meant!r} != {stored!r}"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[1:3]))
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_created_is_what_was_meant(server: ApiServer, command: str) -> None:
    meant = json.loads(await kubectl(server, command, "--dry-run=client", "--output=json"))
    stored = json.loads(await kubectl(server, command, "--output=json"))
    meant.pop("status", None)
    assert missing(meant, stored) == []
