"""TTLs that follow the age of an object, and what is remembered of the addresses told."""

from __future__ import annotations

import dataclasses

import dns.message
from hypothesis import given
from hypothesis import strategies as st

from pilotage.dns.core.leases import Leases
from pilotage.dns.core.table import Table
from pilotage.dns.core.ttl import Ages, TtlBounds, step
from pilotage.kit.clock import ManualClock
from pilotage.testing.dns import ask, part, service, settings, table

BOUNDS = TtlBounds(least=1, most=30, negative=1)


def ttl_of(response: dns.message.Message) -> int:
    return response.answer[0].ttl


def adaptive(clock: ManualClock) -> Table:
    made = table(service("web", "10.96.0.20"), service("db"), part("db", "10.244.1.7"))
    made.set_ttl(dataclasses.replace(settings(), ttl=30, negative_ttl=1), Ages(BOUNDS, clock.monotonic))
    return made


def test_a_ttl_grows_while_its_object_is_quiet_and_falls_when_it_changes() -> None:
    clock = ManualClock()
    made = adaptive(clock)
    assert ttl_of(ask(made, "db.default.svc")) == 30, "unchanged for as long as anybody knows"
    made.set_slice(None, part("db", "10.244.1.8"))
    told = []
    for _ in range(400):
        told.append(ttl_of(ask(made, "db.default.svc")))
        clock.advance(1)
        made.grow_ttls(clock.monotonic())
    assert told[0] == 1
    assert told == sorted(told)
    assert sorted(set(told)) == [1, 2, 4, 8, 16, 30]
    assert all(ttl <= max(1, age / 10) for age, ttl in enumerate(told)), "never more than a tenth of the age"
    assert ttl_of(ask(made, "web.default.svc")) == 30
    assert len(made.ages or ()) == 0, "what is quiet is not remembered"  # type: ignore[arg-type]


def test_negative_answers_are_short_where_something_may_appear() -> None:
    made = adaptive(ManualClock())
    assert ask(made, "soon.default.svc").authority[0][0].minimum == 1
    assert ask(made, "www.example.com").authority[0][0].minimum == 30, "no object can bring that about"


@given(seconds=st.floats(0, 1e6), least=st.integers(0, 60), more=st.integers(0, 3600))
def test_a_step_is_within_the_bounds_and_never_more_than_asked(seconds: float, least: int, more: int) -> None:
    bounds = TtlBounds(least=least, most=least + more, negative=0)
    ttl = step(seconds, bounds)
    assert least <= ttl <= bounds.most
    assert ttl <= max(seconds, least)
    assert ttl * 2 > min(seconds, bounds.most) or ttl == bounds.least or ttl == bounds.most


def test_an_address_is_in_use_while_it_may_be_told_and_a_ttl_longer() -> None:
    clock = ManualClock()
    made = table(service("db"), part("db", "10.244.1.7"), service("web", "10.96.0.20"))
    made.leases = Leases(clock.monotonic)
    pod, vip = bytes((10, 244, 1, 7)), bytes((10, 96, 0, 20))
    ask(made, "db.default.svc")
    assert made.leases.remaining() == {pod: 5.0}, "nobody has asked for the other"
    clock.advance(1000)
    ask(made, "web.default.svc")
    assert made.leases.remaining() == {pod: 5.0, vip: 5.0}, "may be told any moment"
    made.set_slice(None, part("db", "10.244.1.8"))
    clock.advance(2)
    assert made.leases.remaining() == {pod: 3.0, vip: 5.0}
    clock.advance(3)
    assert made.leases.remaining() == {vip: 5.0}
    made.forget_answers(recursion=True)
    clock.advance(5)
    assert made.leases.remaining() == {}
