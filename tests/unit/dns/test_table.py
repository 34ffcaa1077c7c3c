"""The table under change: equal to one built at once, and never stale."""

from __future__ import annotations

from collections.abc import Iterable

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.dns.core.name import from_text, reverse_name
from pilotage.dns.core.record import record_text
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import Rotation, parse_query
from pilotage.testing.dns import ask, endpoint, part, reverse, service, summary, table

SVC = "default.svc"

# A small world, so that random changes meet each other.
_NAMES = st.sampled_from(["a", "b", "c"])
_NAMESPACES = st.sampled_from(["default", "other"])
_ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])
_ENDPOINTS = st.lists(
    st.builds(endpoint, _ADDRESSES, st.sampled_from(["", "h", "i"]), ready=st.sampled_from([True, False, None])),
    max_size=4,
    unique_by=lambda e: e.addresses,
)
_SERVICES = st.one_of(
    st.builds(service, _NAMES, namespace=_NAMESPACES, publish_not_ready=st.booleans()),
    st.builds(service, _NAMES, st.sampled_from(["10.96.0.1", "10.96.0.2", "10.0.0.1"]), namespace=_NAMESPACES),
    st.builds(
        service,
        _NAMES,
        namespace=_NAMESPACES,
        external=st.sampled_from(["a.default.svc.cluster.local", "b.other.svc.cluster.local", "1.2.3.4"]),
    ),
)
_SLICES = st.builds(
    lambda of, endpoints, name, namespace: part(of, *endpoints, name=name, namespace=namespace),
    _NAMES,
    _ENDPOINTS,
    st.sampled_from(["s1", "s2"]),
    _NAMESPACES,
)
_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.one_of(_SERVICES, _SLICES)),
        st.tuples(st.just("delete"), st.one_of(_SERVICES, _SLICES)),
        st.tuples(st.sampled_from(["appear", "vanish"]), _NAMESPACES),
        st.tuples(st.just("ask"), st.none()),  # everything, so that everything is compiled when the next change comes
    ),
    max_size=25,
)


def _questions() -> list[tuple[str, str]]:
    found = []
    for namespace in ("default", "other"):
        for name in ("a", "b", "c"):
            base = f"{name}.{namespace}.svc"
            found += [(base, t) for t in ("A", "AAAA", "SRV", "CNAME", "TXT")]
            found += [(f"_http._tcp.{base}", "SRV"), (f"_tcp.{base}", "A"), (f"h.{base}", "A"), (f"i.{base}", "A")]
            found += [(f"10-0-0-{i}.{base}", "A") for i in range(1, 5)]
        found += [(f"{namespace}.svc", "A"), (f"{namespace}.pod", "A"), (f"10-0-0-1.{namespace}.pod", "A")]
    found += [(reverse(f"10.0.0.{i}"), "PTR") for i in range(1, 5)]
    found += [(reverse(f"10.96.0.{i}"), "PTR") for i in range(1, 3)]
    return found


def _packet(name: str, rtype: str) -> bytes:
    full = name if name.endswith(".") else f"{name}.cluster.local."
    return dns.message.make_query(full, rtype, id=7).to_wire()


QUESTIONS = {question: _packet(*question) for question in _questions()}


def _answer(made: Table, data: bytes) -> object:
    """Through the compiled answers, exactly as a listener asks; an `Answer` or None for what is the upstreams'."""
    hit = made.fast.get(data[2:].lower())
    if isinstance(hit, Rotation):
        hit.position = 0  # whose turn it is does not matter here
        return data[:2] + hit()
    return made.respond(data, parse_query(data)) if hit is None else data[:2] + hit


@settings(max_examples=60, deadline=None)
@given(_OPERATIONS)
def test_after_any_changes_every_answer_is_that_of_a_fresh_table(operations: list[tuple[str, object]]) -> None:
    changing = table(namespaces=())
    objects: dict[tuple[str, str, str], Service | EndpointSlice] = {}
    namespaces: set[str] = set()
    for action, subject in operations:
        if action == "ask":
            for data in QUESTIONS.values():
                _answer(changing, data)
        elif isinstance(subject, str):
            (namespaces.add if action == "appear" else namespaces.discard)(subject)
            changing.set_namespace(subject, exists=action == "appear")
        else:
            assert isinstance(subject, Service | EndpointSlice)
            key = (subject.kind, subject.metadata.namespace, subject.metadata.name)
            old, new = objects.get(key), subject if action == "put" else None
            if new is not None:
                objects[key] = new
            elif objects.pop(key, None) is None:
                continue
            if isinstance(subject, Service):
                changing.set_service(old, new)  # type: ignore[arg-type]
            else:
                changing.set_slice(old, new)  # type: ignore[arg-type]
    fresh = table(*objects.values(), namespaces=namespaces)
    for _ in range(2):  # the second time from compiled answers
        for question, data in QUESTIONS.items():
            assert _answer(changing, data) == _answer(fresh, data), question
    assert (
        {**vars(changing.snapshot())} == {**vars(fresh.snapshot())} if hasattr(fresh.snapshot(), "__dict__") else True
    )


def _kept(made: Table) -> set[bytes]:
    return set(made.fast)


def test_only_what_the_change_contradicts_is_dropped() -> None:
    made = table(service("one", "10.96.0.1"), service("two", "10.96.0.2"))
    for name in (f"one.{SVC}", f"two.{SVC}", f"missing.{SVC}", "www.example.com"):
        ask(made, name)
    before = _kept(made)
    assert len(before) == 4
    made.set_service(None, service("one", "10.96.0.9"))
    assert len(before - _kept(made)) == 1
    assert summary(ask(made, f"one.{SVC}"))[1] == ["A 10.96.0.9"]


def test_a_name_that_did_not_exist_appears_at_once() -> None:
    made = table()
    assert summary(ask(made, f"late.{SVC}"))[0] == "NXDOMAIN"
    assert summary(ask(made, f"x.late.{SVC}"))[0] == "NXDOMAIN"
    assert _kept(made)
    made.set_service(None, service("late"))
    made.set_slice(None, part("late", endpoint("10.0.0.1", "x")))
    assert summary(ask(made, f"late.{SVC}"))[1] == ["A 10.0.0.1"]
    assert summary(ask(made, f"x.late.{SVC}"))[1] == ["A 10.0.0.1"]


def test_a_slice_that_changes_its_service_moves() -> None:
    made = table(service("one"), service("two"))
    first, second = part("one", "10.0.0.1", name="s"), part("two", "10.0.0.1", name="s")
    made.set_slice(None, first)
    assert summary(ask(made, f"one.{SVC}"))[1] == ["A 10.0.0.1"]
    made.set_slice(first, second)
    assert summary(ask(made, f"one.{SVC}"))[0] == "NXDOMAIN"
    assert summary(ask(made, f"two.{SVC}"))[1] == ["A 10.0.0.1"]
    assert summary(ask(made, reverse("10.0.0.1"), "PTR"))[1] == ["PTR 10-0-0-1.two.default.svc.cluster.local."]


def test_compiled_answers_are_bounded() -> None:
    made = Table(table().settings, recursion=True, answers_max=100)
    made.set_namespace("default", exists=True)
    made.synced = True
    for i in range(1000):
        ask(made, f"random-{i}.{SVC}")
        assert len(made.fast) <= 100


def test_answers_that_depend_on_many_objects_are_never_kept() -> None:
    made = table(service("web", "10.96.0.1"), service("alias", external="web.default.svc.cluster.local"))
    for name, rtype in ((f"alias.{SVC}", "A"), ("10-0-0-1.default.pod", "A"), ("", "SOA"), ("", "NS")):
        ask(made, name, rtype)
    assert not _kept(made)


def zone_text(made: Table, names: Iterable[str]) -> str:
    lines = []
    for name in names:
        full = from_text(name if name.endswith(".") else f"{name}.cluster.local")
        for rtype in (1, 28, 5, 33, 12, 16):
            answer = made.answer(full, rtype)
            lines += [record_text(r) for r in (answer.answers if answer else ()) if r.rtype == rtype]
    return "\n".join(lines)


def test_records_read_as_a_zone_file() -> None:
    made = table(service("db"), part("db", endpoint("10.0.0.1", "db-0"), ports=[("sql", 5432)]))
    address = ".".join(x.decode() for x in reverse_name(bytes((10, 0, 0, 1)))) + "."
    assert zone_text(made, [f"db.{SVC}", f"_sql._tcp.db.{SVC}", "dns-version", address]).splitlines() == [
        "db.default.svc.cluster.local. 5 IN A 10.0.0.1",
        "db.default.svc.cluster.local. 5 IN SRV 0 100 5432 db-0.db.default.svc.cluster.local.",
        "_sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 100 5432 db-0.db.default.svc.cluster.local.",
        'dns-version.cluster.local. 5 IN TXT "1.1.0"',
        "1.0.0.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local.",
    ]


def test_a_pointer_goes_and_comes_with_its_service() -> None:
    made = table(service("web"), part("web", endpoint("10.96.0.1", "x", ready=False)), part("web", name="ready"))
    name = reverse("10.96.0.1")
    assert summary(ask(made, name, "PTR"))[0] == "NXDOMAIN"
    made.set_service(None, service("web", publish_not_ready=True))
    assert summary(ask(made, name, "PTR"))[1] == ["PTR x.web.default.svc.cluster.local."]
    made.set_service(service("web"), None)
    assert summary(ask(made, name, "PTR"))[0] == "NXDOMAIN"
