"""The configuration file: what is refused, with which line, and what a correct one becomes."""

from __future__ import annotations

import pytest

from pilotage.dns.chain.build import make_chain, read_plan
from pilotage.dns.chain.environment import Environment
from pilotage.dns.chain.forward import Forward
from pilotage.kit.errors import UsageError
from pilotage.testing.dns import table

WHOLE = """\
ttl: {min_s: 1, max_s: 60}
chain:
  - acl:
      rules:
        - {action: refuse, clients: [192.0.2.0/24], names: [internal.example]}
  - ratelimit: {per_second: 100, exempt: 127.0.0.1}
  - log: {format: json, file: /dev/null, classes: [denial, error]}
  - view:
      namespaces: [team-a]
      names: [corp.example]
      chain:
        - forward: {to: 192.0.2.9}
  - rewrite:
      rules:
        - {match: suffix, name: old.example, to: svc.cluster.local}
  - hosts: {entries: ["192.0.2.1 printer.example"]}
  - local: {zone: lab.example, records: ["www 60 A 192.0.2.2", "* CNAME www"]}
  - template:
      zones: nip.example
      types: A
      match: 'ip-(\\d+)\\.nip\\.example'
      answers: [{type: A, value: '10.0.0.{1}'}]
  - records: {zones: [apps.example]}
  - search:
  - cache: {entries: 500}
  - forward: {to: [192.0.2.53, "tls://192.0.2.54%dns.example"], policy: round_robin, race: 2}
  - forward: {zones: [corp.example], to: 192.0.2.55}
"""


def test_a_file_with_everything() -> None:
    plan = read_plan(WHOLE, "dns.yaml")
    assert plan.needs_pods
    assert plan.needs_records
    assert plan.ttl is not None
    chain = make_chain(plan, Environment(table=table()))
    assert chain.recursive
    assert chain.gate is not None
    assert [type(guard).__name__ for guard in chain.gate.guards] == ["AccessList", "RateLimit"]
    order = [type(step).__name__ for step in chain.steps]
    assert order.index("Cluster") < order.index("Cache"), "placed by itself"
    forwards = [step for step in chain.steps if isinstance(step, Forward)]
    assert [str(u.endpoint) for u in forwards[1].upstreams] == ["192.0.2.55:53"], "the longest zone comes first"
    assert [str(u.endpoint) for u in forwards[2].upstreams] == ["192.0.2.53:53", "tls://192.0.2.54:853"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("chain: [", "dns.yaml:1: ", id="no YAML"),
        pytest.param("", "dns.yaml:1: file: chain: at least one step", id="empty"),
        pytest.param("chain:\n- cash: {}", "dns.yaml:2: cash: there is no such step", id="unknown step"),
        pytest.param(
            "chain:\n- cache: {entires: 5}",
            "dns.yaml:2: cache: 'entires' is unknown; did you mean 'entries'?",
            id="misspelt option",
        ),
        pytest.param(
            "chain:\n- cache:\n    entries: many", "dns.yaml:3: cache: entries: 'many' is not a number", id="no number"
        ),
        pytest.param(
            "chain:\n- cache:\n    entries: 0", "dns.yaml:3: cache: entries: 0 is not between 1", id="out of range"
        ),
        pytest.param("chain:\n- forward: {}", "dns.yaml:2: forward: to: one to 16 servers", id="no servers"),
        pytest.param(
            "chain:\n- forward:\n    to:\n    - 192.0.2.1\n    - dns.example",
            "dns.yaml:5: forward: to: 'dns.example'",
            id="server by name",
        ),
        pytest.param("chain:\n- forward: {to: ftp://192.0.2.1}", "ftp is not udp, tcp or tls", id="unknown transport"),
        pytest.param(
            "chain:\n- forward:\n    to: 192.0.2.1\n    policy: best",
            "dns.yaml:4: forward: policy: 'best'",
            id="unknown policy",
        ),
        pytest.param(
            "chain:\n- cache: {}\n  forward: {}", "dns.yaml:2: file.chain: each item is one step", id="two in one"
        ),
        pytest.param(
            "chain:\n- rewrite:\n    rules:\n    - {match: regex, name: '(', to: x}",
            "dns.yaml:4: rewrite.rules: name:",
            id="bad pattern",
        ),
        pytest.param(
            "chain:\n- local:\n    zone: a.example\n    records:\n    - www A 1.2.3",
            "dns.yaml:5: local: records:",
            id="bad record",
        ),
        pytest.param(
            "chain:\n- local: {zone: a.example, records: [b.example. A 192.0.2.1]}",
            "is not one record",
            id="record elsewhere",
        ),
        pytest.param("chain:\n- hosts: {file: /nonexistent/hosts}", "dns.yaml:2: hosts: file:", id="no hosts file"),
        pytest.param("chain:\n- view: {chain: []}", "the view is for nobody", id="view of nobody"),
        pytest.param("chain:\n- acl: {rules: [{action: deny}]}", "action: 'deny' is not one of", id="unknown action"),
        pytest.param("chain:\n- acl: {rules: [{action: drop, clients: [10/8]}]}", "clients:", id="no network"),
        pytest.param("chain:\n- ratelimit: {}", "per_second is missing", id="limit without rate"),
        pytest.param("chain:\n- records: {}", "zones: at least one domain", id="records anywhere"),
        pytest.param("chain:\n- log: {classes: [good]}", "'good' is not one of", id="unknown class"),
        pytest.param("ttl: {min_s: 9, max_s: 3}\nchain:\n- cache: {}", "dns.yaml:1: ttl: min_s is larger", id="bounds"),
        pytest.param("chain:\n- cache: {entries: 1, entries: 2}", "given twice", id="given twice"),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as failure:
        read_plan(text, "dns.yaml")
    assert problem in str(failure.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UsageError) as failure:
        read_plan("chain:\n- cash: {}\n- cache: {entries: x}\n- forward: {to: here}\n", "dns.yaml")
    assert [line.split(":")[1] for line in str(failure.value).splitlines()] == ["2", "3", "4"]
