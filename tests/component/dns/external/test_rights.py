"""What external DNS may: enough, nothing in vain, and the same on clusters of others."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.networking_v1 import Ingress, IngressRule, IngressSpec
from pilotage.api.status import ApiError
from pilotage.apiserver.authorization import bootstrap_objects
from pilotage.client import Client
from pilotage.dns.external import run
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import ApiServer, api_server

MANIFEST = Path(__file__).parents[4] / "src/pilotage/dns/manifests/external-dns.yaml"
COMMANDS = "\n".join(re.findall(r"^#     (.*)$", MANIFEST.read_text(), flags=re.MULTILINE))
NAME = "system:pilotage:external-dns"
ROLE = next(document for plural, document in bootstrap_objects() if document["metadata"]["name"] == NAME)
RIGHTS = [
    (verb, group, resource)
    for rule in ROLE["rules"]
    for verb in rule["verbs"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
]
PUBLISHED = {f"{name}.apps.test": ["192.0.2.1"] for name in ("service", "ingress", "http", "grpc", "mail.tls")}
LISTENERS = {f"{name}.apps.test": ["192.0.2.1"] for name in ("*", "*.tls")}


class Watched(Client):
    """A client that notes what it was refused; `old` makes it one of a server without streaming lists."""

    old = False

    def note(self) -> None:
        self.refused: set[tuple[str, str]] = set()

    async def watch(self, kind: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        if self.old and options.get("send_initial_events"):
            raise ApiError("BadRequest", "sendInitialEvents is forbidden", code=400)
        try:
            async for event in super().watch(kind, **options):
                yield event
        except ApiError as error:
            if error.code == 403:
                self.refused.add(("watch", kind.plural))
            raise

    async def list(self, kind: Any, **options: Any) -> Any:
        try:
            return await super().list(kind, **options)
        except ApiError as error:
            if error.code == 403:
                self.refused.add(("list", kind.plural))
            raise


def client_as(api: ApiServer, user: str) -> Watched:
    client = Watched.from_kubeconfig(api.kubeconfig_of(user))
    assert isinstance(client, Watched)
    client.note()
    return client


async def fill(api: ApiServer, made: Any, balance: Any) -> None:
    """A hostname from every source."""
    await balance(api.client, "web", "192.0.2.1", hostname="service.apps.test")
    rules = IngressSpec(rules=(IngressRule(host="ingress.apps.test"),))
    await api.client.create(Ingress(metadata=ObjectMeta(name="shop", namespace="default"), spec=rules))
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    await api.client.patch(Ingress, "shop", status, namespace="default", subresource="status")
    for plural in ("gateways", "httproutes", "grpcroutes", "tlsroutes"):
        await made.install(plural, "v1")
    await made.gateway("192.0.2.1")
    for plural, name in (("httproutes", "http"), ("grpcroutes", "grpc"), ("tlsroutes", "mail.tls")):
        await made.route(plural, "r", f"{name}.apps.test")


@pytest.mark.parametrize("old", [False, True], ids=["streaming lists", "list and watch"])
async def test_its_role_is_enough(old: bool, knot: Any, gateway_api: Any, balance: Any) -> None:
    async with api_server() as api, client_as(api, NAME) as client, task_set() as tasks:
        client.old = old
        await fill(api, gateway_api(api.client), balance)
        tasks.start(run(knot.config(), client))
        await knot.becomes({**PUBLISHED, **LISTENERS})
        await balance(api.client, "web", "192.0.2.2", hostname="service.apps.test")
        await knot.becomes({**PUBLISHED, **LISTENERS, "service.apps.test": ["192.0.2.2"]})
        assert not client.refused


@pytest.mark.parametrize(("verb", "group", "resource"), RIGHTS)
async def test_every_right_is_needed(
    verb: str, group: str, resource: str, knot: Any, gateway_api: Any, balance: Any, until: Any
) -> None:
    rules = [
        {"verbs": [one_verb], "apiGroups": [one_group], "resources": [one]}
        for one_verb, one_group, one in RIGHTS
        if (one_verb, one_group, one) != (verb, group, resource)
    ]
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "less"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "less"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "less"}
    async with api_server() as api, client_as(api, "less") as client, task_set() as tasks:
        client.old = verb == "list"
        await api.client.apply({**rbac, "kind": "ClusterRole", "rules": rules}, field_manager="test")
        binding = {**rbac, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
        await api.client.apply(binding, field_manager="test")
        await fill(api, gateway_api(api.client), balance)
        ready = asyncio.Event()
        tasks.start(run(knot.config(), client, on_ready=ready.set))

        async def refused() -> bool:
            return bool(client.refused)

        await until(refused, deadline_s=30)
        assert client.refused == {(verb, resource)}
        assert not ready.is_set()
        await knot.becomes({})  # nothing is published, and nothing withdrawn, on half a view


def test_the_manifest_allows_what_the_role_does() -> None:
    documents = {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}
    assert set(documents) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
    assert documents["ClusterRole"]["rules"] == [
        {key: rule[key] for key in ("apiGroups", "resources", "verbs")} for rule in ROLE["rules"]
    ]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the manifest's commands find what they name."""
    (tmp_path / MANIFEST.name).symlink_to(MANIFEST)
    return tmp_path


async def test_the_commands_of_the_manifest_on_a_cluster(
    knot: Any, gateway_api: Any, balance: Any, workshop: Path, key_file: Path
) -> None:
    programs = Path(sys.executable).parent
    assert shutil.which("kubectl", path=str(programs))
    async with api_server() as api:
        await fill(api, gateway_api(api.client), balance)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(api.kubeconfig_path),
            "HOME": str(workshop),
        }
        shell = await asyncio.create_subprocess_exec("sh", "-e", "-c", COMMANDS, cwd=workshop, env=environment)
        async with asyncio.timeout(60):
            assert await shell.wait() == 0
        kubeconfig = workshop / "e.kubeconfig"
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        assert "client-key" not in kubeconfig.read_text()  # the administrator's
        process = await asyncio.create_subprocess_exec(
            *(str(programs / "pilotage"), "external-dns", "--kubeconfig", str(kubeconfig)),
            *("--server", str(knot.address), "--zone", "apps.test", "--owner", "blue", "--key-file", str(key_file)),
        )
        try:
            await knot.becomes({**PUBLISHED, **LISTENERS})
        finally:
            process.terminate()
            assert await process.wait() == 0
