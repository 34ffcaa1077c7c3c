"""DNSRecord objects: who owns a name, which record is chosen, what is refused; and records of foreign answers."""

from __future__ import annotations

from collections import Counter

import dns.flags
import dns.message
import dns.rrset
import pytest

from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns.api import DNSRecord, DNSRecordSpec, RecordValue
from pilotage.dns.core.bailiwick import check_answer
from pilotage.dns.core.custom import CustomRecords, pick
from pilotage.dns.core.name import from_text
from pilotage.dns.core.ndots import PodFacts, report, wasted_questions
from pilotage.dns.core.upstream import accept, upstream_query
from pilotage.dns.core.wire import parse_query

Given = tuple[str, str] | tuple[str, str, int, str]


def record(name: str, *values: Given, key: str = "shop/r", created: str = "") -> DNSRecord:
    namespace, _, own = key.partition("/")
    parts = tuple(
        RecordValue(type=v[0], value=v[1], weight=v[2] if len(v) > 2 else 1, zone=v[3] if len(v) > 3 else "")
        for v in values
    )
    meta = ObjectMeta(name=own, namespace=namespace, creation_timestamp=created)
    return DNSRecord(metadata=meta, spec=DNSRecordSpec(name=name, records=parts))


def store(*records: DNSRecord) -> CustomRecords:
    made = CustomRecords()
    made.allowed = (from_text("apps.example"),)
    for held in records:
        made.set(held.metadata.key, held)
    return made


WEB = from_text("web.apps.example")


def test_the_first_object_owns_a_name_and_the_next_one_inherits_it() -> None:
    first = record("web.apps.example", ("A", "192.0.2.1"), key="a/first", created="2026-01-01T00:00:00Z")
    second = record("Web.apps.example.", ("A", "192.0.2.2"), key="b/second", created="2026-01-02T00:00:00Z")
    made = store(second, first)
    assert made.judge(first).accepted
    assert made.judge(second).reason == "Conflict"
    (choice,) = (made.choices(WEB, "") or {})[1]
    assert choice.record.data == (bytes((192, 0, 2, 1)),)
    made.set("a/first", None)
    assert made.judge(second).accepted
    (choice,) = (made.choices(WEB, "") or {})[1]
    assert choice.record.data == (bytes((192, 0, 2, 2)),)
    made.set("b/second", None)
    assert WEB not in made


@pytest.mark.parametrize(
    ("held", "message"),
    [
        pytest.param(
            record("kubernetes.default.svc.cluster.local", ("A", "192.0.2.1")), "outside the zones", id="a foreign name"
        ),
        pytest.param(record("a..apps.example", ("A", "192.0.2.1")), "not a domain name", id="no name"),
        pytest.param(record("a.apps.example", ("A", "192.0.2.300")), "spec.records[0]", id="no address"),
        pytest.param(record("a.apps.example", ("AXFR", "x")), "is not data", id="no data"),
        pytest.param(
            record("a.apps.example", ("CNAME", "b."), ("A", "192.0.2.1")), "a CNAME stands alone", id="CNAME and more"
        ),
        pytest.param(record("a.apps.example"), "at least one", id="nothing"),
    ],
)
def test_mistakes_are_conditions_and_answer_nothing(held: DNSRecord, message: str) -> None:
    made = store(held)
    judged = made.judge(held)
    assert (judged.accepted, judged.reason) == (False, "Invalid")
    assert message in judged.message
    assert not list(made._choices)


def test_a_zone_gets_its_own_records_and_others_those_for_all() -> None:
    values = (("A", "192.0.2.1", 1, "a"), ("A", "192.0.2.2", 1, "b"), ("A", "192.0.2.3", 1, ""))
    made = store(record("web.apps.example", *values))
    for zone, last in (("a", 1), ("b", 2), ("c", 3), ("", 3)):
        (choice,) = (made.choices(WEB, zone) or {})[1]
        assert choice.record.data[0][-1] == last


def test_weights_are_shares_of_the_answers() -> None:
    made = store(
        record("web.apps.example", ("A", "192.0.2.1", 3, ""), ("A", "192.0.2.2", 1, ""), ("A", "192.0.2.3", 0, ""))
    )
    choices = (made.choices(WEB, "") or {})[1]
    counts = Counter(pick(choices, roll / 400)[0].record.data[0][-1] for roll in range(400))
    assert counts == {1: 300, 2: 100}
    assert len(pick(choices[:1] * 2, 0.5)) == 2, "equal weights are answered together"


def _forged(*lines: str) -> tuple[bytes, bytes]:
    query = dns.message.make_query("www.example.test.", "A")
    sent = upstream_query(parse_query(query.to_wire()), 7, 0)
    response = dns.message.make_response(dns.message.from_wire(sent))
    response.answer.extend(dns.rrset.from_text(*line.split(maxsplit=4)) for line in lines)
    response.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "ns.evil.test."))
    response.additional.append(dns.rrset.from_text("ns.evil.test.", 60, "IN", "A", "6.6.6.6"))
    return sent, response.to_wire()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["www.example.test. 60 IN A 192.0.2.1"], id="the name itself"),
        pytest.param(
            ["b.test. 60 IN A 192.0.2.1", "www.example.test. 60 IN CNAME a.test.", "a.test. 60 IN CNAME b.test."],
            id="a chain in any order",
        ),
    ],
)
def test_answers_keep_what_belongs_to_the_question_and_lose_what_was_only_offered(lines: list[str]) -> None:
    reply = accept(*_forged(*lines))
    message = dns.message.from_wire(reply.message)
    assert sum(len(rrset) for rrset in message.answer) == len(lines)
    assert not message.authority
    assert not message.additional


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["bank.test. 60 IN A 6.6.6.6"], id="another name"),
        pytest.param(["www.example.test. 60 IN A 192.0.2.1", "bank.test. 60 IN A 6.6.6.6"], id="another name as well"),
        pytest.param(["www.example.test. 60 IN CNAME a.test.", "b.test. 60 IN A 6.6.6.6"], id="no link of the chain"),
    ],
)
def test_answers_about_other_names_are_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="other names"):
        accept(*_forged(*lines))


def test_pointers_that_lead_forward_or_in_circles_end() -> None:
    sent, received = _forged("www.example.test. 60 IN A 192.0.2.1")
    end = len(sent) - 11
    for pointer in (end, end + 40):
        circle = received[:end] + (0xC000 | pointer).to_bytes(2, "big") + received[end + 2 :]
        with pytest.raises(ValueError, match="forward"):
            check_answer(circle, end)


def test_the_report_names_workloads_that_pay_and_what_they_wasted() -> None:
    pods = [
        PodFacts(namespace="shop", owner="Deployment/web"),
        PodFacts(namespace="shop", owner="Deployment/web"),
        PodFacts(namespace="shop", owner="Deployment/tuned", ndots="2"),
        PodFacts(namespace="shop", owner="Pod/host", dns_policy="Default"),
        PodFacts(namespace="bank", owner="Job/report", ndots="5"),
    ]
    events = [
        {"rcode": "NXDOMAIN", "name": "www.example.com.bank.svc.cluster.local."},
        {"rcode": "NXDOMAIN", "name": "typo.bank.svc.cluster.local."},
        {"rcode": "NOERROR", "name": "www.example.com.shop.svc.cluster.local."},
    ]
    wasted = wasted_questions(events, from_text("cluster.local"))
    rows = [(row.namespace, row.workload, row.pods, row.wasted) for row in report(pods, wasted)]
    assert rows == [("bank", "Job/report", 1, 1), ("shop", "Deployment/web", 2, 0)]
