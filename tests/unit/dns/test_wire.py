"""Bytes: any packet is read or refused, answers read back, fit, take turns and echo the question's case."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.dns.core.record import A, Rcode
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import Malformed, Query, Rotation, parse_query
from pilotage.testing.dns import ask, part, service, summary, table

WEB = "web.default.svc.cluster.local."


def query_bytes(name: str = WEB, rtype: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, rtype, **options).to_wire()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cluster() -> Table:
    return table(
        service("web", "10.96.0.20"),
        service("many"),
        part("many", *(f"10.244.{i // 200}.{i % 200 + 1}" for i in range(100))),
        service("ten"),
        part("ten", *(f"10.244.9.{i + 1}" for i in range(10))),
    )


def respond(cluster: Table, data: bytes, *, stream: bool = False) -> bytes:
    reply = cluster.respond(data, parse_query(data), stream=stream)
    assert isinstance(reply, bytes)
    return reply


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_refused(data: bytes) -> None:
    try:
        assert isinstance(parse_query(data), Query)
        reply = None
    except Malformed as refusal:
        reply = refusal.reply
    assert reply is None or reply[:2] == data[:2]


_HEADER = st.builds(
    lambda ident, flags, counts: ident + flags + b"".join(counts),
    st.binary(min_size=2, max_size=2),
    st.sampled_from([b"\x01\x00", b"\x00\x00", b"\x01\x20", b"\x80\x00", b"\x28\x00"]),
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\0\2", b"\xff\xff"]), min_size=4, max_size=4),
)


def _labels(labels: list[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


_NAME = st.one_of(
    st.lists(st.binary(min_size=1, max_size=63), max_size=6).map(_labels),
    st.sampled_from([b"\xc0\x0c", b"\xc0\x00", b"\x40abc\0", b"\x80", b"\x3f" * 300, b"\0", b"\xc0"]),
)
_TAIL = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.builds(
        lambda size, extended, options: b"\0\0\x29" + size + extended + len(options).to_bytes(2, "big") + options,
        st.binary(min_size=2, max_size=2),
        st.binary(min_size=4, max_size=4),
        st.binary(max_size=30),
    ),
)


@given(_HEADER, _NAME, st.binary(min_size=4, max_size=4), _TAIL)
def test_almost_valid_packets_never_raise_and_are_answered_in_kind(
    header: bytes, name: bytes, kind: bytes, tail: bytes
) -> None:
    data = header + name + kind + tail
    made = table(service("web", "10.96.0.20"))
    try:
        query = parse_query(data)
    except Malformed:
        return
    reply = made.respond(data, query)
    if isinstance(reply, bytes):
        assert reply[:2] == data[:2]
        assert reply[2] & 0x80
        assert reply[12 : 12 + len(query.question)] == query.question
        dns.message.from_wire(reply, ignore_trailing=False)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"\0" * 11, None, id="shorter than a header"),
        pytest.param(query_bytes()[:2] + b"\x81" + query_bytes()[3:], None, id="an answer, not a query"),
        pytest.param(query_bytes()[:2] + b"\x28\0" + query_bytes()[4:], Rcode.NOTIMP, id="another opcode"),
        pytest.param(query_bytes()[:12], Rcode.FORMERR, id="question missing"),
        pytest.param(query_bytes()[:-2], Rcode.FORMERR, id="question cut short"),
        pytest.param(query_bytes()[:4] + b"\0\2" + query_bytes()[6:], Rcode.FORMERR, id="two questions"),
        pytest.param(query_bytes()[:12] + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR, id="pointer to itself"),
        pytest.param(query_bytes()[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", Rcode.FORMERR, id="name too long"),
        pytest.param(
            query_bytes()[:10] + b"\0\2" + query_bytes()[12:] + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2,
            Rcode.FORMERR,
            id="two OPT records",
        ),
        pytest.param(
            query_bytes()[:10] + b"\0\1" + query_bytes()[12:] + b"\0\0\x29\4\xd0\0\0\0\0\0\x09abc",
            Rcode.FORMERR,
            id="option beyond the packet",
        ),
    ],
)
def test_malformed_packets_get_the_right_refusal(data: bytes, rcode: Rcode | None) -> None:
    with pytest.raises(Malformed) as caught:
        parse_query(data)
    reply = caught.value.reply
    if rcode is None:
        assert reply is None
    else:
        assert reply is not None
        assert reply[:2] == data[:2]
        assert reply[3] & 0xF == rcode


def test_a_query_is_read_as_dnspython_wrote_it() -> None:
    options = {"use_edns": 0, "payload": 1400, "want_dnssec": True}
    query = parse_query(query_bytes("Web.Default.svc.cluster.local.", "SRV", **options))
    assert query.name == (b"web", b"default", b"svc", b"cluster", b"local")
    assert (query.rtype, query.rclass, query.edns, query.udp_bytes, query.dnssec_ok) == (33, 1, True, 1400, True)
    assert query.answer_bytes_max == 1232
    assert query.question.startswith(b"\x03Web\x07Default")


# ── EDNS ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_without_edns_gets_none(cluster: Table) -> None:
    assert ask(cluster, WEB).edns == -1


def test_a_client_with_edns_gets_it_back_with_its_do_bit(cluster: Table) -> None:
    response = ask(cluster, WEB, use_edns=0, want_dnssec=True)
    assert (response.edns, response.payload) == (0, 1232)
    assert response.ednsflags & dns.flags.DO


def test_an_unknown_edns_version_is_badvers(cluster: Table) -> None:
    response = dns.message.from_wire(respond(cluster, query_bytes(use_edns=1)))
    assert response.rcode() == dns.rcode.BADVERS
    assert response.edns == 0
    assert not response.answer


def test_options_are_ignored_not_echoed(cluster: Table) -> None:
    cookie = dns.edns.GenericOption(10, b"12345678")
    response = ask(cluster, WEB, use_edns=0, options=[cookie])
    assert summary(response)[1] == ["A 10.96.0.20"]
    assert not response.options


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        pytest.param({}, 512, id="without EDNS"),
        pytest.param({"use_edns": 0, "payload": 100}, 512, id="EDNS less than the minimum"),
        pytest.param({"use_edns": 0, "payload": 800}, 800, id="EDNS in between"),
        pytest.param({"use_edns": 0, "payload": 4096}, 1232, id="EDNS above our own limit"),
    ],
)
def test_a_large_answer_is_cut_at_what_the_client_takes(cluster: Table, options: dict[str, int], limit: int) -> None:
    data = query_bytes("many.default.svc.cluster.local.", **options)
    for _ in range(3):
        reply = respond(cluster, data)
        response = dns.message.from_wire(reply)
        assert response.flags & dns.flags.TC
        assert limit - 16 < len(reply) <= limit
        assert len(response.answer[0]) == (limit - (12 + 36 + (11 if options else 0))) // 16


def test_by_stream_the_answer_is_whole(cluster: Table) -> None:
    response = dns.message.from_wire(respond(cluster, query_bytes("many.default.svc.cluster.local."), stream=True))
    assert not response.flags & dns.flags.TC
    assert len(response.answer[0]) == 100


def test_names_are_compressed(cluster: Table) -> None:
    assert len(respond(cluster, query_bytes("ten.default.svc.cluster.local."))) == 12 + 35 + 10 * 16
    reply = respond(cluster, query_bytes("_http._tcp.ten.default.svc.cluster.local.", "SRV"), stream=True)
    # RFC 2782: the target itself must not be compressed; the additional records point into it.
    assert reply.count(b"\x0a10-244-9-1\x03ten\x07default\x03svc\x07cluster\x05local\0") == 1
    response = dns.message.from_wire(reply)
    assert len(response.additional) == 10


# ── turns and case ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_addresses_take_turns_in_front(cluster: Table) -> None:
    data = query_bytes("ten.default.svc.cluster.local.")
    orders = []
    for _ in range(20):
        hit = cluster.fast.get(data[2:].lower())
        reply = respond(cluster, data) if hit is None else data[:2] + (hit() if isinstance(hit, Rotation) else hit)
        orders.append([str(r) for r in dns.message.from_wire(reply).answer[0]])
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert {order[0] for order in orders} == set(orders[0])


def test_a_cut_answer_takes_turns_over_all_addresses(cluster: Table) -> None:
    data = query_bytes("many.default.svc.cluster.local.")
    seen: set[str] = set()
    respond(cluster, data)
    compiled = cluster.fast[data[2:].lower()]
    assert isinstance(compiled, Rotation)
    for _ in range(100):
        seen |= {str(r) for r in dns.message.from_wire(data[:2] + compiled()).answer[0]}
    assert len(seen) == 100


@pytest.mark.parametrize("rtype", ["A", "AAAA", "SRV"])
def test_the_case_of_the_question_is_echoed_everywhere(cluster: Table, rtype: str) -> None:
    name = "WeB.deFAULT.sVc.cluSTER.locAL."
    response = dns.message.from_wire(respond(cluster, query_bytes(name, rtype)))
    assert str(response.question[0].name) == name
    for rrset in response.answer:
        assert str(rrset.name) == name
    for rrset in response.authority:
        assert str(rrset.name) == "cluSTER.locAL."


def test_a_type_whose_number_looks_like_a_letter_is_not_mixed_up(cluster: Table) -> None:
    """HTTPS is 65, which is "A"; type 97 is "a": lower-casing a packet makes them the same."""
    for rtype in (65, 97, 65, 97):
        data = query_bytes(WEB, dns.rdatatype.RdataType.make(rtype))
        response = dns.message.from_wire(respond(cluster, data))
        assert response.question[0].rdtype == rtype
        assert summary(response) == ("NODATA", [])


def test_recursion_flags_are_repeated(cluster: Table) -> None:
    for flags in (0, dns.flags.RD, dns.flags.RD | dns.flags.CD):
        query = dns.message.make_query(WEB, "A", flags=flags)
        response = dns.message.from_wire(respond(cluster, query.to_wire()))
        assert response.flags & (dns.flags.RD | dns.flags.CD) == flags
        assert response.flags & dns.flags.RA


def test_a_rotation_is_whole_after_every_turn() -> None:
    made = table(service("two"), part("two", "10.0.0.1", "10.0.0.2"))
    first, second, third = (summary(ask(made, "two.default.svc")) for _ in range(3))
    assert first == second == third == ("NOERROR", ["A 10.0.0.1", "A 10.0.0.2"])
    assert A == 1
