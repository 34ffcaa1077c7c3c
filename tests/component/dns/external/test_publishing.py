"""Hostnames of a real API server on a real authoritative server (knot), signed; and the refusal of whoever is not."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import dns.asyncquery
import pytest

from pilotage.api.core_v1 import Service
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.api.networking_v1 import Ingress, IngressRule, IngressSpec
from pilotage.client import PatchType
from pilotage.dns.chain.exchange import Address
from pilotage.dns.core.name import from_text
from pilotage.dns.external import publisher, run
from pilotage.dns.external.core.annotations import HOSTNAME
from pilotage.dns.external.server import AuthoritativeServer
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server

PILOTAGE = str(Path(sys.executable).with_name("pilotage"))
NARROW = "hmac-sha256:narrow:c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ=="
WRONG = {
    "BADSIG": "hmac-sha256:pilotage:YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg==",
    "BADKEY": "hmac-sha256:nobody:c2VjcmV0IG9mIHRoaXMgdGVzdCBhbG9uZQ==",
    "or a key must be given": "",
}


async def test_hostnames_come_change_and_go_and_names_of_others_stay(knot: Any, balance: Any) -> None:
    async with api_server() as api, task_set() as tasks:
        await balance(api.client, "web", "192.0.2.1", hostname="web.apps.test, *.wild.apps.test", ttl="1m30s")
        await balance(api.client, "thief", "192.0.2.1", hostname="byhand.apps.test")
        tasks.start(run(knot.config(sources=("service", "ingress")), api.client))
        await knot.becomes({"web.apps.test": ["192.0.2.1"], "*.wild.apps.test": ["192.0.2.1"]})
        content = await knot.server.read()
        text = content[from_text("_pilotage.web.apps.test")]["TXT"][1]
        assert text == {"heritage=pilotage,owner=blue,resource=service/default/web"}
        assert content[from_text("web.apps.test")]["A"][0] == 90

        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "2001:db8::2"}]}}}
        await api.client.patch(Service, "web", status, namespace="default", subresource="status")
        both = ["192.0.2.2", "2001:db8::2"]
        await knot.becomes({"web.apps.test": both, "*.wild.apps.test": both})

        rules = IngressSpec(rules=(IngressRule(host="shop.apps.test"),))
        await api.client.create(Ingress(metadata=ObjectMeta(name="shop", namespace="default"), spec=rules))
        address = {"status": {"loadBalancer": {"ingress": [{"hostname": "edge.example"}]}}}
        await api.client.patch(Ingress, "shop", address, namespace="default", subresource="status")
        shop = {"shop.apps.test": ["edge.example."]}
        new = {"metadata": {"annotations": {HOSTNAME: "new.apps.test"}}}
        await api.client.patch(Service, "web", new, namespace="default", patch_type=PatchType.MERGE)
        await knot.becomes({"new.apps.test": both, **shop})
        assert from_text("_pilotage.web.apps.test") not in await knot.server.read()

        address = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.3"}]}}}
        await api.client.patch(Ingress, "shop", address, namespace="default", subresource="status")
        await knot.becomes({"new.apps.test": both, "shop.apps.test": ["192.0.2.3"]})
        await api.client.delete(Service, "web", namespace="default")
        await knot.becomes({"shop.apps.test": ["192.0.2.3"]})
        await api.client.delete(Ingress, "shop", namespace="default")
        await knot.becomes({})


async def test_two_clusters_share_a_zone_and_the_first_keeps_the_name(knot: Any, balance: Any) -> None:
    async with api_server() as blue, api_server() as green, task_set() as tasks:
        await balance(blue.client, "web", "192.0.2.1", hostname="web.apps.test")
        tasks.start(run(knot.config(), blue.client))
        await knot.becomes({"web.apps.test": ["192.0.2.1"]})
        await balance(green.client, "web", "192.0.2.9", hostname="web.apps.test, green.apps.test")
        tasks.start(run(knot.config(owner="green"), green.client))
        await knot.becomes({"web.apps.test": ["192.0.2.1"], "green.apps.test": ["192.0.2.9"]})
        await blue.client.delete(Service, "web", namespace="default")
        await knot.becomes({"green.apps.test": ["192.0.2.9"]})
        # Free now: the next look at the zone, here after a change, finds it so.
        await balance(green.client, "more", "192.0.2.9", hostname="more.apps.test")
        names = ("web.apps.test", "green.apps.test", "more.apps.test")
        await knot.becomes({key: ["192.0.2.9"] for key in names})


async def test_the_server_away_and_back(knot: Any, balance: Any) -> None:
    async with api_server() as api, task_set() as tasks:
        await balance(api.client, "web", "192.0.2.1", hostname="web.apps.test")
        tasks.start(run(knot.config(), api.client))
        await knot.becomes({"web.apps.test": ["192.0.2.1"]})
        await knot.stop()
        await balance(api.client, "web", "192.0.2.2", hostname="web.apps.test")
        await balance(api.client, "new", "192.0.2.3", hostname="new.apps.test")
        await knot.start()
        await knot.becomes({"web.apps.test": ["192.0.2.2"], "new.apps.test": ["192.0.2.3"]})


async def test_a_name_that_the_server_refuses_keeps_no_other_from_it(
    knot: Any, balance: Any, capsys: pytest.CaptureFixture[str], until: Any
) -> None:
    said = ""
    async with api_server() as api, task_set() as tasks:
        await balance(api.client, "web", "192.0.2.1", hostname="a.apps.test, b.apps.test, c.apps.test")
        tasks.start(run(knot.config(NARROW), api.client))
        await knot.becomes({"b.apps.test": ["192.0.2.1"]})

        async def told() -> bool:
            nonlocal said
            said += capsys.readouterr().err
            return "update of a.apps.test." in said and "key 'narrow', or not for this" in said

        await until(told)


@pytest.mark.parametrize("wrong", WRONG)
async def test_whoever_is_refused_for_a_key_is_told_so(
    wrong: str, knot: Any, balance: Any, tmp_path: Path, until: Any
) -> None:
    key_file = tmp_path / "wrong.key"
    key_file.write_text(WRONG[wrong])
    async with api_server() as api:
        await balance(api.client, "web", "192.0.2.1", hostname="web.apps.test")
        process = await asyncio.create_subprocess_exec(
            PILOTAGE,
            "external-dns",
            *("--kubeconfig", str(api.kubeconfig_path), "--server", str(knot.address)),
            *("--zone", "apps.test", "--owner", "blue"),
            *(("--key-file", str(key_file)) if WRONG[wrong] else ()),
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(30):
                line = (await process.stderr.readline()).decode()
            assert "zone is not as it should be" in line
            assert wrong in line
            assert WRONG[wrong].rpartition(":")[2] not in line or not WRONG[wrong]
        finally:
            process.terminate()
            await process.wait()
        await knot.becomes({})


async def test_many_changes_are_a_bounded_number_of_looks(
    knot: Any, balance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read = AuthoritativeServer.read

    async def counted(server: AuthoritativeServer) -> Any:
        nonlocal looks
        looks += server is not knot.server
        return await read(server)

    monkeypatch.setattr(AuthoritativeServer, "read", counted)
    async with api_server() as api, task_set() as tasks:
        start = time.monotonic()
        tasks.start(run(knot.config(), api.client))
        for last in range(100):
            await balance(api.client, "web", f"192.0.2.{last}", hostname="web.apps.test")
        await knot.becomes({"web.apps.test": ["192.0.2.99"]})
        assert looks <= 2 + (time.monotonic() - start) / publisher.SPACING_S


async def test_an_end_that_comes_together_with_an_answer_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(dns.asyncquery, "inbound_xfr", lambda *_, **__: asyncio.wait_for(answer, 10))
    server = AuthoritativeServer(Address("127.0.0.1", 53), from_text("apps.test"), None)
    reading = asyncio.get_running_loop().create_task(server.read())
    await asyncio.sleep(0)
    answer.set_result(None)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
