"""Corefiles: what becomes of them, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotage.cli.__main__ import run
from pilotage.dns.chain.build import make_chain, read_plan
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.corefile import convert
from pilotage.testing.dns import table

USUAL = Path(__file__).parent / "testdata" / "usual.Corefile"
EXPECTED = """\
chain:
- search:
- rewrite:
    rules:
    - match: suffix
      name: .shop.example
      to: .shop.svc.cluster.local
    - match: regex
      name: (.*)\\.old\\.example
      to: '{1}.new.example'
- hosts:
    entries:
    - 192.0.2.10 printer.example
- template:
    zones:
    - nip.example
    types:
    - A
    match: ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]nip[.]example
    ttl_s: 60
    answers:
    - type: A
      value: 10.0.{a}.{b}
- cache:
    ttl_max_s: 30
    negative_ttl_max_s: 30
    prefetch_hits: 10
    prefetch_percent: 10
    stale_s: 3600
    stale_immediately: false
- forward:
    to:
    - 192.0.2.53
    - tls://192.0.2.54
    policy: sequential
    tls_server_name: dns.example
    concurrent_max: 1000
    health_interval_s: 5
- forward:
    zones:
    - corp.example
    to:
    - 192.0.2.60
    - 192.0.2.61
"""


def test_a_usual_corefile_becomes_a_configuration_that_is_accepted() -> None:
    made = convert(USUAL.read_text())
    assert made.document() == EXPECTED
    assert made.flags == ["--pods", "insecure", "--ttl", "30", "--health", "0.0.0.0:9153"]
    assert made.missing == ["39: geoip: no counterpart"]
    assert "37: reload: a changed file is always taken up" in made.notes
    assert make_chain(read_plan(made.document(), "result"), Environment(table=table())).recursive


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        pytest.param(". {\n  etcd\n}", "2: etcd: no counterpart", id="a plugin without counterpart"),
        pytest.param(
            ". {\n  kubernetes cluster.local {\n    namespaces a b\n  }\n}",
            "3: namespaces: no counterpart: every Service of the cluster has its names",
            id="an option without counterpart",
        ),
        pytest.param(". {\n  rewrite type ANY HINFO\n}", "2: rewrite: rewriting of type", id="another rewriting"),
        pytest.param("(common) {\n  cache\n}", "1: (common): snippets", id="a snippet"),
        pytest.param(
            ". {\n  forward . grpc://192.0.2.1\n}", "2: forward: DNS over gRPC", id="a transport without counterpart"
        ),
    ],
)
def test_what_has_no_counterpart_is_named_with_line_and_plugin(text: str, missing: str) -> None:
    found = convert(text).missing
    assert len(found) == 1
    assert found[0].startswith(missing)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(". {\n  cache", "1: a block that does not end", id="open block"),
        pytest.param("}", "1: a closing brace too many", id="closed twice"),
        pytest.param('. {\n  hosts "x\n}', "2: a quote that does not end", id="open quote"),
        pytest.param("{\n}", "1: a block without a name", id="block without name"),
    ],
)
def test_what_is_no_corefile_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        convert(text)


def test_the_command_prints_the_file_and_fails_for_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dns", "import-corefile", str(USUAL)]) == 1
    output = capsys.readouterr()
    assert output.out.endswith(EXPECTED)
    assert f"{USUAL}:39: geoip: no counterpart (not translated)" in output.err
    simple = tmp_path / "Corefile"
    simple.write_text(".:53 {\n  forward . 192.0.2.53\n}\n")
    assert run(["dns", "import-corefile", str(simple)]) == 0
    made = tmp_path / "dns.yaml"
    made.write_text(capsys.readouterr().out)
    assert run(["dns", "check", str(made)]) == 0
    made.write_text("chain: [cash: ]")
    assert run(["dns", "check", str(made)]) == 2
