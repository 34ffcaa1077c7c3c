"""Each step of the chain, asked over real sockets; and exchanging the chain while questions come."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from pilotage.testing.dns import service


def answers(response: dns.message.Message) -> list[str]:
    return [f"{rrset.rdtype.name} {r}" for rrset in response.answer for r in rrset]


@pytest.fixture
def configured(start: Any, tmp_path: Path) -> Any:
    """`async with configured("chain: …") as server`: `{up}` in the text is replaced by the caller."""

    def make(text: str, **options: Any) -> Any:
        path = tmp_path / "dns.yaml"
        path.write_text(text)
        return start(config_file=str(path), **options)

    return make


async def test_hosts_local_zones_templates_and_rewriting(configured: Any, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.8 scanner.example  # in the hall\nfd00::8 scanner.example\nnonsense\n")
    text = f"""
chain:
  - rewrite:
      rules:
        - {{match: suffix, name: shop.example, to: default.svc.cluster.local, ttl_s: 7}}
        - {{match: regex, name: '(.*)\\.alias\\.example', to: '\\1.lab.example'}}
  - hosts: {{file: {hosts}, entries: ["192.0.2.1 printer.example p", "192.0.2.66 web.default.svc.cluster.local"]}}
  - local:
      zone: lab.example
      records: ["www 60 A 192.0.2.2", "* A 192.0.2.3", "a.b TXT hello", "short CNAME www", "@ MX 10 www"]
  - template:
      zones: nip.example
      types: A
      match: 'ip-(\\d+)-(\\d+)\\.nip\\.example'
      answers: [{{type: A, value: '10.0.{{1}}.{{2}}'}}]
"""
    async with configured(text) as server:
        assert answers(await server.ask("printer.example.")) == ["A 192.0.2.1"]
        assert answers(await server.ask("scanner.example.", "AAAA")) == ["AAAA fd00::8"]
        assert answers(await server.ask("1.2.0.192.in-addr.arpa.", "PTR")) == ["PTR printer.example."]
        assert answers(await server.ask("web.default.svc")) == ["A 192.0.2.66"], "before the cluster's own"
        nodata = await server.ask("p.", "AAAA")
        assert (nodata.rcode(), nodata.answer) == (dns.rcode.NOERROR, [])
        www = await server.ask("WWW.lab.example.")
        assert answers(www) == ["A 192.0.2.2"]
        assert www.flags & dns.flags.AA
        assert answers(await server.ask("any.thing.lab.example.")) == ["A 192.0.2.3"]
        assert answers(await server.ask("short.lab.example.")) == ["CNAME www.lab.example.", "A 192.0.2.2"]
        mx = await server.ask("lab.example.", "MX")
        assert answers(mx) == ["MX 10 www.lab.example."]
        assert mx.additional[0][0].to_text() == "192.0.2.2"
        between = await server.ask("b.lab.example.")
        assert (between.rcode(), between.answer) == (dns.rcode.NOERROR, []), "an empty non-terminal"
        gone = await server.ask("x.b.lab.example.")
        assert gone.rcode() == dns.rcode.NXDOMAIN, "the wildcard is of a name further up"
        assert gone.authority
        assert answers(await server.ask("ip-3-4.nip.example.")) == ["A 10.0.3.4"]
        assert (await server.ask("ip-3-400.nip.example.")).rcode() == dns.rcode.SERVFAIL, "10.0.3.400 is no address"
        assert (await server.ask("ip-3.nip.example.")).rcode() == dns.rcode.REFUSED
        rewritten = await server.ask("big.shop.example.", tcp=True)
        assert len(rewritten.answer[0]) == 100, "a headless Service by another name"
        assert rewritten.answer[0].ttl == 7
        assert answers(await server.ask("www.alias.example.")) == ["A 192.0.2.2"]


async def test_the_longest_zone_decides_who_is_asked(configured: Any, upstream: Any, start_upstream: Any) -> None:
    async with start_upstream() as corporate:
        text = f"""
chain:
  - forward: {{to: "127.0.0.1:{upstream.port}", except: secret.test}}
  - forward: {{zones: [example.test], to: "127.0.0.1:{corporate.port}"}}
"""
        async with configured(text) as server:
            await server.ask("short.example.test.")
            assert (upstream.datagrams, corporate.datagrams) == (0, 1)
            await server.ask("short.other.test.")
            assert (upstream.datagrams, corporate.datagrams) == (1, 1)
            assert (await server.ask("www.secret.test.")).rcode() == dns.rcode.REFUSED


async def test_of_racing_upstreams_the_first_useful_answer_counts(
    configured: Any, upstream: Any, start_upstream: Any
) -> None:
    async with start_upstream() as silent, start_upstream() as broken:
        silent.silent, broken.rcode = True, dns.rcode.SERVFAIL
        to = ", ".join(f'"127.0.0.1:{u.port}"' for u in (silent, broken, upstream))
        text = f"chain: [forward: {{to: [{to}], policy: sequential, race: 3, timeout_s: 30}}]"
        async with configured(text) as server:
            async with asyncio.timeout(10):
                assert answers(await server.ask("legacy.example.test."))[-1] == "A 192.0.2.7"
            assert silent.datagrams == broken.datagrams == upstream.datagrams == 1


async def test_round_robin_asks_every_server_in_turn(configured: Any, upstream: Any, start_upstream: Any) -> None:
    async with start_upstream() as second:
        to = f'"127.0.0.1:{upstream.port}", "127.0.0.1:{second.port}"'
        async with configured(f"chain: [forward: {{to: [{to}], policy: round_robin}}]") as server:
            for index in range(6):
                await server.ask(f"short.{index}.example.test.")
            assert (upstream.datagrams, second.datagrams) == (3, 3)


async def test_a_resting_server_is_found_to_be_back_by_its_health_check(
    configured: Any, upstream: Any, start_upstream: Any, until: Any
) -> None:
    async with start_upstream() as second:
        to = f'"127.0.0.1:{upstream.port}", "127.0.0.1:{second.port}"'
        text = f"chain: [forward: {{to: [{to}], policy: sequential, timeout_s: 0.1, health_interval_s: 0.05}}]"
        async with configured(text) as server:
            upstream.silent = True
            for index in range(2):
                await server.ask(f"short.{index}.example.test.")
            (forward,) = (s for s in server.server.chains.chain.steps if hasattr(s, "upstreams"))
            assert forward.upstreams[0].failures >= 2
            upstream.silent = False

            async def is_back() -> bool:
                return bool(forward.upstreams[0].failures == 0)

            await until(is_back)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=dns.example "
        "-addext subjectAltName=DNS:dns.example -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


async def test_an_upstream_by_tls_must_prove_its_name(
    configured: Any, upstream: Any, certificate: tuple[str, str]
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(upstream.stream, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    for name, rcode in (("dns.example", dns.rcode.NOERROR), ("other.example", dns.rcode.SERVFAIL)):
        text = f"""
chain:
  - forward: {{to: "tls://127.0.0.1:{port}", tls_server_name: {name}, tls_ca: {certificate[0]}}}
"""
        async with configured(text) as running:
            assert (await running.ask("legacy.example.test.")).rcode() == rcode
    server.close()
    assert upstream.datagrams == 0


async def test_lapsed_answers_while_no_upstream_answers(configured: Any, upstream: Any, until: Any) -> None:
    text = f"""
chain:
  - cache: {{stale_s: 60, prefetch_hits: 0}}
  - forward: {{to: "127.0.0.1:{upstream.port}", timeout_s: 0.5}}
"""
    async with configured(text) as server:
        assert (await server.ask("short.example.test.")).answer[0].ttl == 1
        upstream.silent = True
        asked = upstream.datagrams

        async def lapsed() -> bool:
            response = await server.ask("short.example.test.")
            assert answers(response) == ["A 192.0.2.9"], "never an error"
            return bool(upstream.datagrams > asked and response.answer[0].ttl == 5)

        await until(lapsed)
        assert (await server.ask("short.unknown.test.")).rcode() == dns.rcode.SERVFAIL


async def test_what_many_ask_for_is_fetched_before_it_lapses(configured: Any, upstream: Any, until: Any) -> None:
    text = f"""
chain:
  - cache: {{prefetch_hits: 2, prefetch_percent: 90}}
  - forward: {{to: "127.0.0.1:{upstream.port}"}}
"""
    async with configured(text) as server:
        await server.ask("short.example.test.")

        async def refreshed() -> bool:
            await server.ask("short.example.test.")
            return bool(upstream.datagrams > 1)

        await until(refreshed)


async def test_one_question_answers_the_whole_search_list(configured: Any, upstream: Any) -> None:
    text = f"""
chain:
  - search: {{domains: [corp.test]}}
  - cache: {{}}
  - forward: {{to: "127.0.0.1:{upstream.port}"}}
"""
    async with configured(text) as server:
        for _ in range(2):
            response = await server.ask("legacy.example.test.default.svc")
            assert answers(response) == ["CNAME legacy.example.test.", "CNAME real.example.test.", "A 192.0.2.7"]
            assert all(rrset.ttl <= 5 for rrset in response.answer)
        assert upstream.datagrams == 2, "the node's own domain, then the name itself; both are kept"
        crossed = await server.ask("web.default.default.svc")
        assert answers(crossed) == ["CNAME web.default.svc.cluster.local.", "A 10.96.0.20"]
        assert (await server.ask("nothing.example.test.default.svc")).rcode() == dns.rcode.NXDOMAIN
        assert answers(await server.ask("web.default.svc")) == ["A 10.96.0.20"], "what exists is not completed"
        assert (await server.ask("legacy.example.test.nowhere.svc")).rcode() == dns.rcode.NXDOMAIN


async def test_without_upstreams_completion_still_says_what_the_cluster_knows(configured: Any, upstream: Any) -> None:
    upstream.silent = True
    text = f'chain: [search: , cache: , forward: {{to: "127.0.0.1:{upstream.port}", timeout_s: 0.5}}]'
    async with configured(text) as server:
        first = await server.ask("www.example.test.default.svc")
        assert (first.rcode(), first.answer) == (dns.rcode.NXDOMAIN, []), "that very name"
        assert first.flags & dns.flags.AA
        assert first.authority
        assert (await server.ask("www.example.test.")).rcode() == dns.rcode.SERVFAIL, "where the client's search ends"
        upstream.silent = False
        completed = await server.ask("legacy.example.test.default.svc")
        assert answers(completed)[-1] == "A 192.0.2.7"


async def test_a_completed_answer_ends_with_the_event_that_contradicts_it(configured: Any, upstream: Any) -> None:
    text = f'chain: [search: , cache: , forward: {{to: "127.0.0.1:{upstream.port}"}}]'
    async with configured(text) as server:
        name = "web.default.default.svc"
        for _ in range(3):
            assert answers(await server.ask(name))[-1] == "A 10.96.0.20"
        server.server._on_service(None, service("web", "10.96.0.21"))
        assert answers(await server.ask(name))[-1] == "A 10.96.0.21"


async def test_views_guards_and_events(configured: Any, tmp_path: Path) -> None:
    events = tmp_path / "events.json"
    text = f"""
chain:
  - acl:
      rules:
        - {{action: refuse, names: [hidden.example]}}
        - {{action: drop, clients: [127.0.0.3]}}
  - log: {{format: json, file: {events}, classes: [denial, error]}}
  - view:
      clients: [127.0.0.2/32]
      names: [split.example]
      chain:
        - local: {{zone: split.example, records: ["www A 192.0.2.20"]}}
  - local: {{zone: split.example, records: ["www A 192.0.2.10"]}}
"""
    async with configured(text) as server:
        for _ in range(3):
            for source, address in (("127.0.0.1", "192.0.2.10"), ("127.0.0.2", "192.0.2.20")):
                query = dns.message.make_query("www.split.example.", "A")
                response = await dns.asyncquery.udp(
                    query, server.address.host, timeout=10, port=server.address.port, source=source
                )
                assert answers(response) == [f"A {address}"]
        for tcp in (False, True):
            assert (await server.ask("www.hidden.example.", tcp=tcp)).rcode() == dns.rcode.REFUSED
        query = dns.message.make_query("web.default.svc.cluster.local.", "A")
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(
                query, server.address.host, timeout=10, port=server.address.port, source="127.0.0.3"
            )
        assert (await server.ask("missing.default.svc")).rcode() == dns.rcode.NXDOMAIN
        assert (await server.ask("missing.default.svc")).rcode() == dns.rcode.NXDOMAIN
        assert answers(await server.ask("web.default.svc")) == ["A 10.96.0.20"]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [(e["name"], e["rcode"], e["transport"]) for e in lines] == [
        (".", "REFUSED", "udp"),
        (".", "REFUSED", "tcp"),
        ("missing.default.svc.cluster.local.", "NXDOMAIN", "udp"),
        ("missing.default.svc.cluster.local.", "NXDOMAIN", "udp"),
    ]
    assert lines[-1]["client"] == "127.0.0.1"


async def test_a_limited_client_is_asked_to_prove_its_address(configured: Any) -> None:
    text = "chain: [ratelimit: {per_second: 0.001, burst: 3, action: truncate}]"
    async with configured(text) as server:
        truncated = [bool((await server.ask("web.default.svc")).flags & dns.flags.TC) for _ in range(5)]
        assert truncated == [False, False, False, True, True]
        assert answers(await server.ask("web.default.svc", tcp=True)) == ["A 10.96.0.20"]


async def test_a_changed_file_is_served_without_losing_a_question(
    configured: Any, tmp_path: Path, until: Any, upstream: Any
) -> None:
    async with configured("chain: [hosts: {entries: [192.0.2.1 one.example]}]") as server:
        path = tmp_path / "dns.yaml"
        stop = False
        asked = 0

        async def ask_on() -> None:
            nonlocal asked
            while not stop:
                assert answers(await server.ask("web.default.svc")) == ["A 10.96.0.20"]
                asked += 1

        asking = asyncio.gather(*(ask_on() for _ in range(4)))
        path.write_text("chain: [hosts: {entries: [wrong]}]")
        assert not server.server.chains.reread(), "refused, and the old one stays"
        assert answers(await server.ask("one.example.")) == ["A 192.0.2.1"]
        path.write_text(
            f'chain: [acl: , hosts: {{entries: [192.0.2.2 one.example]}}, forward: {{to: "127.0.0.1:{upstream.port}"}}]'
        )

        async def changed() -> bool:
            return answers(await server.ask("one.example.")) == ["A 192.0.2.2"]

        await until(changed)
        response = await server.ask("legacy.example.test.")
        assert answers(response)[-1] == "A 192.0.2.7"
        stop = True
        await asking
        assert asked > 20
