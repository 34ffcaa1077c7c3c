"""The real kubectl against the real server, as its users use it."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pilotage.testing.cluster import api_server

Kubectl = Callable[..., Awaitable[str]]
Start = Callable[..., Awaitable[asyncio.subprocess.Process]]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: localhost/host, ports: [{containerPort: 80, name: http}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"""


def binary() -> str:
    """The kubectl of the environment, else the one on PATH."""
    local = Path(sys.executable).with_name("kubectl")
    found = str(local) if local.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    return found


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Begins a command."""
    program = binary()
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    async with api_server() as server:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": str(server.kubeconfig_path)}

        async def begin(command: str, *arguments: str) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                program,
                *command.split(),
                *arguments,
                env=environment,
                cwd=tmp_path,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )

        yield begin


@pytest.fixture
def kubectl(start: Start) -> Kubectl:
    """Runs a command to its end."""

    async def run(command: str, *arguments: str, fails: bool = False, given: str = "") -> str:
        process = await start(command, *arguments)
        async with asyncio.timeout(30):
            output, _ = await process.communicate(given.encode())
        text = output.decode()
        assert (process.returncode != 0) is fails, f"kubectl {command}: {text}"
        return text

    return run


async def test_apply_get_describe_scale_delete(kubectl: Kubectl) -> None:
    assert "deployment.apps/web created" in await kubectl("apply -f manifest.yaml")
    assert "deployment.apps/web unchanged" in await kubectl("apply -f manifest.yaml")
    assert await kubectl("diff -f manifest.yaml") == ""
    table = (await kubectl("get deployments -o wide")).splitlines()
    headings = "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"
    assert table[0].split() == headings.split()
    assert table[1].split()[:4] == ["web", "0/2", "0", "0"]
    assert table[1].split()[5:] == ["web", "localhost/host", "app=web"]
    assert "10.96." in await kubectl("get service web")
    assert "web" in await kubectl("describe deployment web")
    assert "scaled" in await kubectl("scale deployment web --replicas=5")
    assert await kubectl("get deploy web -o jsonpath={.spec.replicas}") == "5"
    assert "patched" in await kubectl("patch deploy web -p", '{"spec":{"replicas":3}}')
    assert "image updated" in await kubectl("set image deploy/web web=localhost/other")
    assert "deleted" in await kubectl("delete -f manifest.yaml")
    assert "No resources found" in await kubectl("get deploy")


async def test_server_side_apply_and_its_conflicts(kubectl: Kubectl) -> None:
    assert "serverside-applied" in await kubectl("apply --server-side -f manifest.yaml")
    await kubectl("scale deployment web --replicas=4")
    refused = await kubectl("apply --server-side --field-manager=other -f manifest.yaml", fails=True)
    assert "conflict" in refused and ".spec.replicas" in refused
    assert "serverside-applied" in await kubectl(
        "apply --server-side --force-conflicts --field-manager=other -f manifest.yaml"
    )


async def test_imperative_commands(kubectl: Kubectl) -> None:
    await kubectl("create deployment api --image=localhost/host --port=8080")
    assert "exposed" in await kubectl("expose deployment api --port=80 --target-port=8080")
    await kubectl("create configmap settings --from-literal=a=b")
    await kubectl("create secret generic keys --from-literal=a=b")
    assert await kubectl("get secret keys -o jsonpath={.data.a}") == "Yg=="
    assert "namespace/team created" in await kubectl("create namespace team")
    await kubectl("run shell --image=localhost/host --labels=a=b")
    assert "shell" in await kubectl("get pods -l a=b")
    await kubectl("label pod shell c=d")
    await kubectl("annotate pod shell e=f")
    await kubectl("delete pod shell --wait=true")
    assert "kubernetes-admin" in await kubectl("auth whoami")
    assert await kubectl("auth can-i create pods") == "yes\n"
    assert "no" in await kubectl("auth can-i create pods --as=jane", fails=True)
    assert len((await kubectl("create token default")).split(".")) == 3


async def test_a_pod_is_resized(kubectl: Kubectl) -> None:
    containers = '"containers":[{"name":"a","image":"localhost/host"}]'
    limits = '"resources":{"limits":{"cpu":"2","memory":"1Gi"}}'
    await kubectl("run shared --image=localhost/host --overrides", f'{{"spec":{{{containers},{limits}}}}}')
    whole = '{"spec":{"resources":{"requests":{"cpu":"4"},"limits":{"cpu":"4"}}}}'
    assert "patched" in await kubectl("patch pod shared --subresource resize --patch", whole)
    assert await kubectl("get pod shared -o jsonpath={.spec.resources.limits.cpu}") == "4"
    refused = await kubectl("patch pod shared --subresource=resize --patch", f'{{"spec":{{{limits}}}}}', fails=True)
    assert "Pod QOS Class may not change as a result of resizing" in refused


async def test_discovery_and_explanations(kubectl: Kubectl) -> None:
    resources = await kubectl("api-resources")
    for expected in ("deployments", "endpointslices", "ingresses", "poddisruptionbudgets"):
        assert expected in resources
    assert "FIELD: replicas <integer>" in await kubectl("explain deployment.spec.replicas")
    assert "v1.36" in await kubectl("version")
    assert "ok" in await kubectl("get --raw /readyz")


async def test_mistakes_are_explained(kubectl: Kubectl) -> None:
    assert 'pods "none" not found' in await kubectl("get pod none", fails=True)
    assert "doesn't have a resource type" in await kubectl("get nonsense", fails=True)
    await kubectl("apply -f manifest.yaml")
    misspelt = MANIFEST.replace("replicas", "replica")
    assert 'unknown field "spec.replica"' in await kubectl("apply --validate=strict -f -", fails=True, given=misspelt)
    assert "spec.replicas" in await kubectl("patch deploy web -p", '{"spec":{"replicas":-1}}', fails=True)
    immutable = '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'
    assert "field is immutable" in await kubectl("patch deploy web -p", immutable, fails=True)


async def test_a_watch_prints_changes(kubectl: Kubectl, start: Start) -> None:
    watching = await start("get configmaps --watch -o name")
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(60):
            for name in ("one", "two"):
                await kubectl(f"create configmap {name}")
                while (line := await watching.stdout.readline()) != f"configmap/{name}\n".encode():
                    assert line, f"it ended before it printed {name}"
    finally:
        watching.terminate()
        await watching.communicate()
