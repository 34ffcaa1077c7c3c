"""Hostnames of a real API server on a real authoritative server (knot), signed; and the refusal of whoever is not."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.networking_v1 import Ingress, IngressRule, IngressSpec
from pilotage.client import PatchType
from pilotage.dns.chain.exchange import Address
from pilotage.dns.core.name import from_text
from pilotage.dns.external import Config, parse_key, run
from pilotage.dns.external.core.wanted import HOSTNAME_ANNOTATION, from_gateways, join
from pilotage.dns.external.server import AuthoritativeServer, ServerRefused
from pilotage.kit.errors import UsageError
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

KEY = parse_key("hmac-sha256:pilotage:c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ==")
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
acl:
  - id: publisher
    key: pilotage
    action: [transfer, update]
zone:
  - domain: apps.test
    storage: {folder}
    file: apps.test.zone
    acl: publisher
"""
ZONE = """
@ 300 SOA ns host 1 3600 600 86400 60
@ 300 NS ns
ns 300 A 127.0.0.1
byhand 300 A 192.0.2.200
"""


@pytest.fixture
async def knot(tmp_path: Path, until: Any) -> AsyncIterator[AuthoritativeServer]:
    """An authoritative server for apps.test."""
    program = shutil.which("knotd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program is not None, "Debian package knot, see tools/system-packages"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "apps.test.zone").write_text(ZONE)
    configuration = tmp_path / "knot.conf"
    configuration.write_text(CONFIGURATION.format(port=port, folder=tmp_path))
    process = await asyncio.create_subprocess_exec(program, "-c", str(configuration))
    server = AuthoritativeServer(Address("127.0.0.1", port), from_text("apps.test"), KEY)
    try:

        async def serves() -> bool:
            try:
                return bool(await server.read())
            except ServerRefused:
                return False

        await until(serves, deadline_s=20)
        yield server
    finally:
        process.terminate()
        await process.wait()


async def records(server: AuthoritativeServer) -> dict[str, list[str]]:
    """What addresses the zone has."""
    return {
        ".".join(label.decode() for label in name): sorted(v for k in ("A", "AAAA", "CNAME") if k in s for v in s[k][1])
        for name, s in (await server.read()).items()
        if set(s) & {"A", "AAAA", "CNAME"}
    }


async def test_hostnames_come_change_and_go_and_names_of_others_stay(knot: AuthoritativeServer, until: Any) -> None:
    first = {"ns.apps.test": ["127.0.0.1"], "byhand.apps.test": ["192.0.2.200"]}
    config = Config(server=str(knot._address), zone="apps.test", owner="blue", key=KEY, sources=("service", "ingress"))

    async def becomes(expected: dict[str, list[str]]) -> None:
        async def same() -> bool:
            return await records(knot) == first | expected

        await until(same, deadline_s=20)

    async with api_server() as api, task_set() as tasks:
        for name, hostname in (("web", "web.apps.test, *.wild.apps.test"), ("thief", "byhand.apps.test")):
            document = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "annotations": {HOSTNAME_ANNOTATION: hostname}},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            }
            await api.client.apply(document, field_manager="test")
            status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
            await api.client.patch(Service, name, status, namespace="default", subresource="status")
        tasks.start(run(config, api.client))
        wild = {"*.wild.apps.test": ["192.0.2.1"]}
        await becomes({"web.apps.test": ["192.0.2.1"], **wild})
        content = await knot.read()
        text = content[from_text("_pilotage.web.apps.test")]["TXT"][1]
        assert text == {"heritage=pilotage,owner=blue,resource=service/default/web"}

        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "2001:db8::2"}]}}}
        await api.client.patch(Service, "web", status, namespace="default", subresource="status")
        both = ["192.0.2.2", "2001:db8::2"]
        await becomes({"web.apps.test": both, "*.wild.apps.test": both})

        rules = IngressSpec(rules=(IngressRule(host="shop.apps.test"),))
        await api.client.create(Ingress(metadata=ObjectMeta(name="shop", namespace="default"), spec=rules))
        address = {"status": {"loadBalancer": {"ingress": [{"hostname": "edge.example"}]}}}
        await api.client.patch(Ingress, "shop", address, namespace="default", subresource="status")
        shop = {"shop.apps.test": ["edge.example."]}
        await api.client.patch(
            Service,
            "web",
            {"metadata": {"annotations": {HOSTNAME_ANNOTATION: "new.apps.test"}}},
            namespace="default",
            patch_type=PatchType.MERGE,
        )
        await becomes({"new.apps.test": both, **shop})
        assert from_text("_pilotage.web.apps.test") not in await knot.read()
        await api.client.delete(Service, "web", namespace="default")
        await becomes(shop)


async def test_an_update_without_the_right_signature_is_refused(knot: AuthoritativeServer) -> None:
    wrong = parse_key("hmac-sha256:pilotage:YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg==")
    for key in (None, wrong):
        with pytest.raises(ServerRefused):
            await AuthoritativeServer(knot._address, from_text("apps.test"), key).read()


def test_gateways_publish_their_listeners_and_routes() -> None:
    gateway = {
        "metadata": {"name": "edge", "namespace": "infra"},
        "spec": {"listeners": [{"hostname": "api.apps.test"}, {"port": 80}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.9"}]},
    }
    routes = [
        {
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {
                "parentRefs": [{"name": "edge", "namespace": "infra"}],
                "hostnames": ["shop.apps.test", "x.other"],
            },
        },
        {
            "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "edge"}], "hostnames": ["y.apps.test"]},
        },
    ]
    wanted, problems = join(from_gateways([gateway], routes), from_text("apps.test"))
    assert {".".join(map(bytes.decode, name)): sorted(want.records) for name, want in wanted.items()} == {
        "api.apps.test": [("A", "192.0.2.9")],
        "shop.apps.test": [("A", "192.0.2.9")],
    }
    assert not problems


@pytest.mark.parametrize("text", ["", "a:b", "hmac-sha256:k:not base64", "rot13:k:c2VjcmV0"])
def test_what_is_no_key_is_refused_without_telling_it(text: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_key(text)
    assert "c2VjcmV0" not in str(failure.value)
