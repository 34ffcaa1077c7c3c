"""Debian's knot as the enterprise's authoritative server, and what a cluster has to publish."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.status import ApiError
from pilotage.client import Client
from pilotage.dns.chain.exchange import Address
from pilotage.dns.core.name import from_text
from pilotage.dns.external import Config, parse_key
from pilotage.dns.external.core.annotations import HOSTNAME
from pilotage.dns.external.server import AuthoritativeServer, ServerRefused
from pilotage.testing.etcd import free_port

KEY_TEXT = "hmac-sha256:pilotage:c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ=="
NARROW_TEXT = "hmac-sha256:narrow:c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ=="
CONFIGURATION = """
server:
  listen: 127.0.0.1@{port}
  rundir: {folder}
database:
  storage: {folder}
log:
  - target: stderr
    any: error
key:
  - id: pilotage
    algorithm: hmac-sha256
    secret: c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ==
  - id: narrow
    algorithm: hmac-sha256
    secret: c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ==
acl:
  - id: publisher
    key: pilotage
    action: [transfer, update]
  - id: reader
    key: narrow
    action: transfer
  - id: writer
    key: narrow
    action: update
    update-owner: name
    update-owner-match: equal
    update-owner-name: [b, _pilotage.b]
zone:
  - domain: apps.test
    storage: {folder}
    file: apps.test.zone
    acl: [publisher, reader, writer]
"""
ZONE = """
@ 300 SOA ns host 1 3600 600 86400 60
@ 300 NS ns
ns 300 A 127.0.0.1
byhand 300 A 192.0.2.200
"""
FIRST = {"ns.apps.test": ["127.0.0.1"], "byhand.apps.test": ["192.0.2.200"]}
Until = Callable[..., Awaitable[Any]]


class Knot:
    """A server for apps.test that can be stopped and started again."""

    def __init__(self, folder: Path, until: Until) -> None:
        program = shutil.which("knotd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program is not None, "Debian package knot, see tools/system-packages"
        self._program = program
        self._until = until
        self._process: asyncio.subprocess.Process | None = None
        self.address = Address("127.0.0.1", free_port())
        (folder / "apps.test.zone").write_text(ZONE)
        self._configuration = folder / "knot.conf"
        self._configuration.write_text(CONFIGURATION.format(port=self.address.port, folder=folder))
        self.server = AuthoritativeServer(self.address, from_text("apps.test"), parse_key(KEY_TEXT))

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(self._program, "-c", str(self._configuration))

        async def serves() -> bool:
            try:
                return bool(await self.server.read())
            except ServerRefused:
                return False

        await self._until(serves, deadline_s=30)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await self._process.wait()
            self._process = None

    def config(self, key_text: str = KEY_TEXT, **options: Any) -> Config:
        key = parse_key(key_text)
        return Config(**{"server": str(self.address), "zone": "apps.test", "owner": "blue", "key": key, **options})

    async def records(self) -> dict[str, list[str]]:
        """What addresses the zone has."""
        kinds = ("A", "AAAA", "CNAME")
        return {
            ".".join(label.decode() for label in name): sorted(v for k in kinds if k in sets for v in sets[k][1])
            for name, sets in (await self.server.read()).items()
            if set(sets) & set(kinds)
        }

    async def becomes(self, expected: dict[str, list[str]]) -> None:
        """Until the zone has these names, and those it began with, and no others."""
        last: dict[str, list[str]] = {}

        async def same() -> bool:
            nonlocal last
            last = await self.records()
            return last == FIRST | expected

        try:
            await self._until(same, deadline_s=30)
        except AssertionError:
            raise AssertionError(f"the zone has {last}") from None

    async def serial(self) -> str:
        """It changes with every update."""
        content = await self.server.read()
        (soa,) = content[from_text("apps.test")]["SOA"][1]
        return soa.split()[2]


@pytest.fixture
async def knot(tmp_path: Path, until: Until) -> AsyncIterator[Knot]:
    made = Knot(tmp_path, until)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def balanced(client: Client, name: str, address: str, **annotations: str) -> None:
    """A Service with a load balancer's address; `hostname="a, b"` and so on are its annotations."""
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "annotations": {HOSTNAME.replace("hostname", word): text for word, text in annotations.items()},
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    await client.apply(document, field_manager="test")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    await client.patch(Service, name, status, namespace="default", subresource="status")


GROUP = "gateway.networking.k8s.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMES = {"gateways": "Gateway", "httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute", "tlsroutes": "TLSRoute"}


def definition(plural: str, *versions: str, retired: str = "") -> dict[str, Any]:
    """The definition of a kind of Gateway API, without its schema; the last version is the stored one."""
    kind = NAMES[plural]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": version,
                    "served": version != retired,
                    "storage": version == versions[-1],
                    "subresources": {"status": {}},
                    "schema": schema,
                }
                for version in versions
            ],
        },
    }


class GatewayApi:
    """Objects of Gateway API as their controllers would leave them."""

    def __init__(self, client: Client, until: Until) -> None:
        self.client = client
        self._until = until

    async def install(self, plural: str, *versions: str, retired: str = "") -> None:
        """Define a kind, or other versions of it, and wait until it is served."""
        await self._define(definition(plural, *versions, retired=retired))

        async def served() -> bool:
            try:
                await self.client.request("GET", f"/apis/{GROUP}/{versions[-1]}/{plural}")
            except ApiError:
                return False
            return True

        await self._until(served, deadline_s=30)

    async def retire(self, plural: str, version: str) -> None:
        """The only version of a kind is not served any more, while its objects stay."""
        await self._define(definition(plural, version, retired=version))

    async def _define(self, document: dict[str, Any]) -> None:
        path = f"{DEFINITIONS}/{document['metadata']['name']}"
        query = {"fieldManager": "test", "force": "true"}
        body = json.dumps(document).encode()
        await self.client.request("PATCH", path, body=body, query=query, content_type="application/apply-patch+yaml")

    async def remove(self, plural: str) -> None:
        await self.client.request("DELETE", f"{DEFINITIONS}/{plural}.{GROUP}")

    async def put(self, plural: str, name: str, spec: Any, status: Any, *, version: str = "v1", **meta: Any) -> None:
        """Create or change an object and its status."""
        path = f"/apis/{GROUP}/{version}/namespaces/default/{plural}/{name}"
        kind = {"apiVersion": f"{GROUP}/{version}", "kind": NAMES[plural]}
        query = {"fieldManager": "test", "force": "true"}
        for suffix, part in (("", {"spec": spec}), ("/status", {"status": status})):
            body = json.dumps({**kind, "metadata": {"name": name, **meta}, **part}).encode()
            apply = "application/apply-patch+yaml"
            await self.client.request("PATCH", path + suffix, body=body, query=query, content_type=apply)

    async def gateway(self, *addresses: str) -> None:
        """The Gateway `edge`, for names in apps.test, by TLS for those in tls.apps.test."""
        listeners = [
            {"name": "web", "protocol": "HTTP", "port": 80, "hostname": "*.apps.test"},
            {"name": "tls", "protocol": "TLS", "port": 443, "hostname": "*.tls.apps.test"},
        ]
        status = {"addresses": [{"type": "IPAddress", "value": address} for address in addresses]}
        await self.put("gateways", "edge", {"gatewayClassName": "any", "listeners": listeners}, status)

    async def route(self, plural: str, name: str, *hostnames: str, accepted: str = "True", version: str = "v1") -> None:
        parent = {"name": "edge"}
        conditions = [{"type": "Accepted", "status": accepted, "reason": "X", "message": ""}]
        status = {"parents": [{"parentRef": parent, "controllerName": "x/y", "conditions": conditions}]}
        spec = {"parentRefs": [parent], "hostnames": list(hostnames)}
        await self.put(plural, name, spec, status, version=version)

    async def delete(self, plural: str, name: str, *, version: str = "v1") -> None:
        await self.client.request("DELETE", f"/apis/{GROUP}/{version}/namespaces/default/{plural}/{name}")


@pytest.fixture
def gateway_api(until: Until) -> Callable[[Client], GatewayApi]:
    return lambda client: GatewayApi(client, until)


@pytest.fixture
def balance() -> Callable[..., Awaitable[None]]:
    return balanced


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "tsig.key"
    file.write_text(KEY_TEXT)
    return file
