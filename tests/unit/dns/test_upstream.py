"""What is believed of an upstream's packet, how long it is kept, and how it reads for the next asker."""

from __future__ import annotations

import contextlib

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.dns.core.record import Rcode, record_text
from pilotage.dns.core.upstream import Reply, accept, answer_records, failure, judge, render, upstream_query
from pilotage.dns.core.wire import Query, parse_query

NAME = "www.example.com."


def asked(name: str = NAME, rtype: str = "A", **options: object) -> Query:
    return parse_query(dns.message.make_query(name, rtype, **options).to_wire())  # type: ignore[arg-type]


SENT = upstream_query(asked(), 0x1234, (1 << 256) - 1)


def answered(*answers: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, authority: tuple[str, ...] = ()) -> bytes:
    """What an honest upstream answers to SENT."""
    response = dns.message.make_response(dns.message.from_wire(SENT), recursion_available=True)
    response.set_rcode(rcode)
    for section, lines in ((response.answer, answers), (response.authority, authority)):
        for line in lines:
            owner, ttl, kind, data = line.split(" ", 3)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
    return response.to_wire(max_size=65535)


SOA = "example.com. 900 SOA ns.example.com. host.example.com. 1 2 3 4 60"


def test_the_query_has_its_own_id_and_case_and_edns() -> None:
    message = dns.message.from_wire(SENT)
    assert message.id == 0x1234
    assert str(message.question[0].name) == "WWW.EXAMPLE.COM."
    assert message.flags & dns.flags.RD
    assert (message.edns, message.payload) == (0, 1232)


def test_an_honest_answer_is_believed_and_kept_for_its_shortest_ttl() -> None:
    data = answered(f"{NAME} 300 CNAME web.example.com.", "web.example.com. 60 A 192.0.2.1")
    assert judge(SENT, data).ours
    reply = accept(SENT, data)
    assert (reply.rcode, reply.lifetime_s) == (Rcode.NOERROR, 60)


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x12\x35" + answered()[2:], id="another id"),
        pytest.param(SENT, id="our own query"),
        pytest.param(answered()[:12] + answered()[12:].replace(b"EXAMPLE", b"EXAMPLF"), id="another name"),
        pytest.param(answered()[:29] + b"\0\x1c" + answered()[31:], id="another type"),
    ],
)
def test_forged_answers_are_not_ours(forged: bytes) -> None:
    assert not judge(SENT, forged).ours


def test_an_answer_in_another_case_is_asked_for_by_stream() -> None:
    verdict = judge(SENT, answered().replace(b"WWW", b"www"))
    assert verdict.ours and verdict.retry_by_stream


def test_a_truncated_answer_is_asked_for_by_stream() -> None:
    data = bytearray(answered())
    data[2] |= 0x02
    verdict = judge(SENT, bytes(data))
    assert verdict.ours and verdict.retry_by_stream
    assert accept(SENT, bytes(data)).lifetime_s == 0


@pytest.mark.parametrize(
    ("data", "lifetime"),
    [
        pytest.param(answered(rcode=dns.rcode.NXDOMAIN, authority=(SOA,)), 60, id="NXDOMAIN: the SOA's minimum"),
        pytest.param(answered(authority=(SOA,)), 60, id="NODATA: the SOA's minimum"),
        pytest.param(answered(rcode=dns.rcode.NXDOMAIN), 5, id="NXDOMAIN without SOA: a few seconds"),
        pytest.param(answered(rcode=dns.rcode.SERVFAIL), 0, id="SERVFAIL: not at all"),
        pytest.param(answered(f"{NAME} 0 A 192.0.2.1"), 0, id="TTL 0: not at all"),
        pytest.param(answered(f"{NAME} 999999 A 192.0.2.1"), 3600, id="long promises are cut"),
    ],
)
def test_how_long_an_answer_is_kept(data: bytes, lifetime: int) -> None:
    assert accept(SENT, data).lifetime_s == lifetime


@given(st.binary(max_size=200))
def test_any_bytes_after_a_right_question_are_taken_apart_or_refused(tail: bytes) -> None:
    head = answered()[: len(SENT) - 11]
    for counts in (b"\0\1\0\0\0\0", b"\0\2\0\1\0\1", b"\xff\xff\0\0\0\0"):
        try:
            reply = accept(SENT, head[:6] + counts + head[12:] + tail)
        except ValueError:
            continue
        render(reply, asked(), bytes_max=1232)
        with contextlib.suppress(ValueError):
            answer_records(reply)


def _reply() -> Reply:
    return accept(SENT, answered(f"{NAME} 300 CNAME web.example.com.", "web.example.com. 60 A 192.0.2.1"))


def test_the_next_asker_gets_its_own_id_case_and_edns_and_aged_ttls() -> None:
    query = asked("wWw.eXample.com.")
    response = dns.message.from_wire(render(_reply().aged(25), query, bytes_max=512))
    assert response.id == query.id
    assert str(response.question[0].name) == "wWw.eXample.com."
    assert [(rrset.ttl, str(rrset[0]).lower()) for rrset in response.answer] == [
        (275, "web.example.com."),  # points into the question, and so has its case
        (35, "192.0.2.1"),
    ]
    assert response.edns == -1
    assert not response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA
    with_edns = dns.message.from_wire(render(_reply(), asked(use_edns=0), bytes_max=1232))
    assert with_edns.edns == 0


def test_what_does_not_fit_is_truncated() -> None:
    lines = [f"{NAME} 60 A 192.0.2.{i}" for i in range(1, 100)]
    reply = accept(SENT, answered(*lines))
    response = dns.message.from_wire(render(reply, asked(), bytes_max=512))
    assert response.flags & dns.flags.TC
    assert not response.answer
    whole = dns.message.from_wire(render(reply, asked(), bytes_max=65535))
    assert len(whole.answer[0]) == 99


def test_answers_become_records_with_whole_names() -> None:
    assert [record_text(r) for r in answer_records(_reply().aged(10))][1] == "web.example.com. 50 IN A 192.0.2.1"
    assert len(answer_records(_reply())) == 2


def test_a_failure_of_our_own_is_an_answer_too() -> None:
    query = asked(use_edns=0)
    response = dns.message.from_wire(render(failure(query, Rcode.REFUSED), query, bytes_max=512))
    assert response.rcode() == dns.rcode.REFUSED
    assert response.question[0].name == dns.name.from_text(NAME)
