"""The iptables backend over iptables in memory: changes equal the whole, and what others do is seen and undone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.kit.clock import ManualClock
from pilotage.nft.core.types import PORT, PROTOCOL, encode_address
from pilotage.proxy.backends.fake_xtables import FakeXtables
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.core.iptables import HOOKS, PREFIX, RuleSet
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Plan, Planner
from pilotage.proxy.core.restore import read_save
from pilotage.proxy.core.topology import NodeView
from pilotage.proxy.errors import BackendError
from pilotage.testing.proxy_audit import audit
from pilotage.testing.services import make_service, make_slice

NODE = NodeView(name="n1")
SURROUNDINGS = Surroundings(cluster_cidrs=("10.244.0.0/16", "fd00:244::/56"))
FAMILIES = ("ip", "ip6")
World = tuple[Service, list[EndpointSlice]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A Service of both families and its endpoints; few addresses, so that buckets are shared."""
    number = draw(st.integers(1, 3))
    service = make_service(
        f"s{number}",
        f"10.96.{number // 3}.{number}",
        draw(st.sampled_from([["80@30080"], [f"80@3010{number}/UDP"], ["x:80", "y:81@30141"]])),
        cluster_ips=(f"10.96.{number // 3}.{number}", f"fd00:96::{number}"),
        type=draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])),
        ingress=draw(st.sampled_from([[], [f"10.89.200.{number}", "fd00:200::1"]])),
        external_ips=tuple(draw(st.sampled_from([(), ("198.51.100.7", f"2001:db8::{number}")]))),
        session_affinity=draw(st.sampled_from(["None", "ClientIP"])),
        internal_traffic_policy=draw(st.sampled_from(["Cluster", "Local"])),
        external_traffic_policy=draw(st.sampled_from(["Cluster", "Local"])),
        load_balancer_source_ranges=tuple(draw(st.sampled_from([(), ("192.0.2.0/24", "10.0.0.0/9")]))),
    )
    hosts = draw(st.lists(st.integers(2, 5), max_size=3, unique=True))
    ports = draw(st.sampled_from([["8080"], ["8080/UDP"], ["x:8080", "y:9090"]]))
    slices = [
        make_slice(service.metadata.name, [f"10.244.1.{host}@n{host % 2 + 1}" for host in hosts], ports, name="four"),
        make_slice(
            service.metadata.name, [f"fd00:244::{host}@n1" for host in hosts], ports, name="six", address_type="IPv6"
        ),
    ]
    return service, slices


def plan_one(planner: Planner, world: World) -> None:
    service, slices = world
    ports = service_ports(service, slices)
    dirty = planner.update(service.metadata.key, ports, age=service.metadata.creation_timestamp)
    assert not dirty & {service.metadata.key}


def make_backend(xtables: FakeXtables, clock: ManualClock | None = None) -> IptablesBackend:
    return IptablesBackend(xtables, families=FAMILIES, surroundings=SURROUNDINGS, clock=clock or ManualClock())


def planned(*worlds: World) -> Plan:
    planner = Planner(NODE)
    for world in worlds:
        plan_one(planner, world)
    return planner.plan()


WEB: World = (
    make_service(ports=["80@30080"], type="NodePort"),
    [make_slice(endpoints=["10.244.1.2@n1", "10.244.2.2@n2"])],
)


@settings(max_examples=60, deadline=None)
@given(st.lists(worlds(), max_size=6))
def test_changes_end_where_a_fresh_start_ends(steps: list[World]) -> None:
    xtables, fresh = FakeXtables(), FakeXtables()
    backend = make_backend(xtables)
    planner = Planner(NODE)
    backend.sync(planner.plan())
    known: dict[str, World] = {}
    for world in steps:
        known[world[0].metadata.key] = world
        dirty = {world[0].metadata.key}
        while dirty:
            key = dirty.pop()
            service, slices = known[key]
            dirty |= planner.update(key, service_ports(service, slices), age=service.metadata.creation_timestamp)
        backend.apply(planner.take())
    make_backend(fresh).sync(planner.plan())
    assert {family: xtables.chains[family] == fresh.chains[family] for family in FAMILIES} == {"ip": True, "ip6": True}
    assert audit(backend, planner.plan()) == ()


def test_a_change_rewrites_only_what_it_concerns() -> None:
    texts: list[str] = []

    class Recorder(FakeXtables):
        def restore(self, family: str, text: str) -> None:
            texts.append(text)
            super().restore(family, text)

    backend, planner = make_backend(Recorder()), Planner(NODE)
    others = [(make_service(f"s{n}", f"10.96.0.{n}"), [make_slice(f"s{n}", ["10.244.2.9@n2"])]) for n in range(10, 60)]
    for world in (WEB, *others):
        plan_one(planner, world)
    planner.take()
    backend.sync(planner.plan())
    texts.clear()
    plan_one(planner, (WEB[0], [make_slice(endpoints=["10.244.2.2@n2", "10.244.2.3@n2"])]))
    backend.apply(planner.take())
    (text,) = texts
    # The chains of its cluster IP and of its node port, and the list of endpoints that may be their own client.
    assert sum(line.startswith(":") for line in text.splitlines()) == 3
    assert "10.244.2.9" not in text


@pytest.mark.parametrize(
    ("bend", "kind"),
    [
        (lambda rules: rules[1:], "missing"),
        (lambda rules: (*rules, "-j ACCEPT"), "unexpected"),
        (lambda rules: tuple(reversed(rules)), "changed"),
    ],
    ids=["a rule removed", "a rule added", "rules in another order"],
)
def test_a_bent_chain_is_named_and_repaired(bend: Any, kind: str) -> None:
    xtables = FakeXtables()
    backend, plan = make_backend(xtables), planned(WEB)
    backend.sync(plan)
    before = {family: dict(chains) for family, chains in xtables.chains.items()}
    assert not backend.disturbed()
    name = ("filter", f"{PREFIX}REFUSE")
    xtables.chains["ip"][name] = bend(xtables.chains["ip"][name])
    assert {(one.set, one.kind) for one in backend.check(plan)} == {(" ".join(name), kind)}
    assert backend.disturbed(), "a look alone repairs nothing"
    assert {(one.set, one.kind) for one in audit(backend, plan)} == {(" ".join(name), kind)}
    assert xtables.chains == before
    assert audit(backend, plan) == ()


@pytest.mark.parametrize("name", HOOKS, ids=" ".join)
def test_a_lost_way_in_is_found_again(name: tuple[str, str]) -> None:
    xtables = FakeXtables()
    backend, plan = make_backend(xtables), planned(WEB)
    backend.sync(plan)
    xtables.chains["ip"][name] = ("-j ACCEPT",)
    assert [(one.set, one.kind, one.element) for one in audit(backend, plan)] == [
        (" ".join(name), "missing", HOOKS[name])
    ]
    assert xtables.chains["ip"][name] == (HOOKS[name], "-j ACCEPT"), "ours first, others' untouched"


def test_everything_comes_back_after_a_flush() -> None:
    xtables = FakeXtables()
    backend, plan = make_backend(xtables), planned(WEB)
    backend.sync(plan)
    before = {family: dict(chains) for family, chains in xtables.chains.items()}
    xtables.chains = FakeXtables().chains
    assert {one.kind for one in audit(backend, plan)} == {"missing"}
    assert xtables.chains == before


def test_cleanup_leaves_what_is_not_ours() -> None:
    xtables = FakeXtables()
    theirs = "*nat\n:THEIRS - [0:0]\n-A PREROUTING -j THEIRS\nCOMMIT\n"
    xtables.restore("ip", theirs)
    before = {family: dict(chains) for family, chains in xtables.chains.items()}
    backend = make_backend(xtables)
    backend.sync(planned(WEB))
    assert xtables.chains != before
    backend.cleanup()
    assert xtables.chains == before


def test_a_restart_changes_nothing_and_removes_strays() -> None:
    xtables = FakeXtables()
    make_backend(xtables).sync(planned(WEB))
    assert make_backend(xtables).sync(planned(WEB)) == 0
    xtables.restore("ip", f"*nat\n:{PREFIX}OLD - [0:0]\n-A {PREFIX}OLD -j DROP\nCOMMIT\n")
    assert make_backend(xtables).sync(planned(WEB)) == 1
    assert ("nat", f"{PREFIX}OLD") not in xtables.chains["ip"]


def test_a_refused_change_is_told_and_a_synchronisation_mends_it() -> None:
    xtables, planner = FakeXtables(), Planner(NODE)
    backend = make_backend(xtables)
    backend.sync(planner.plan())
    plan_one(planner, WEB)
    xtables.refuse_next = True
    with pytest.raises(BackendError):
        backend.apply(planner.take())
    assert backend.sync(planner.plan()) > 0
    assert audit(backend, planner.plan()) == ()


def test_a_change_by_others_just_before_ours_is_not_missed() -> None:
    xtables, planner = FakeXtables(), Planner(NODE)
    backend = make_backend(xtables)
    backend.sync(planner.plan())
    xtables.restore("ip", "*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n")
    plan_one(planner, WEB)
    backend.apply(planner.take())
    assert backend.disturbed()
    assert audit(backend, planner.plan()) == ()
    assert not backend.disturbed()


def test_where_nobody_counts_changes_looks_are_spaced_by_what_they_cost() -> None:
    clock = ManualClock()

    class Uncounted(FakeXtables):
        def generation(self) -> None:
            return None

        def save(self, family: str) -> str:
            clock.advance(0.1)
            return super().save(family)

    backend, plan = make_backend(Uncounted(), clock), planned(WEB)
    backend.sync(plan)
    audit(backend, plan)
    assert not backend.disturbed()
    clock.advance(3.9)
    assert not backend.disturbed()
    clock.advance(0.2)
    assert backend.disturbed()


def test_another_versions_spelling_is_no_drift() -> None:
    class Elsewhere(FakeXtables):
        def save(self, family: str) -> str:
            return super().save(family).replace("-m tcp ", "")

    xtables = Elsewhere()
    backend, plan = make_backend(xtables), planned(WEB)
    backend.sync(plan)
    assert audit(backend, plan) == ()
    name = next(name for name, rules in xtables.chains["ip"].items() if any("--dport 80 " in rule for rule in rules))
    xtables.chains["ip"][name] = ()
    assert {one.kind for one in audit(backend, plan)} != set()


def test_a_weight_is_a_chance() -> None:
    one, other = (encode_address(f"10.244.1.{n}", 4) + PORT.encode(8080) for n in (2, 3))
    key = encode_address("10.96.0.1", 4) + PROTOCOL.encode("tcp") + PORT.encode(80)
    elements = {
        ("ip", "services"): {key: (4).to_bytes(4, "little")},
        ("ip", "backends"): {
            key + slot.to_bytes(4, "little"): target for slot, target in enumerate((one, one, one, other), 1)
        },
    }
    rules = RuleSet("ip", SURROUNDINGS)
    rules.frontends.load(Plan(elements=elements, chains=frozenset()))
    rules.load()
    found = [rule for chain in rules.chains().values() for rule in chain if "DNAT --to" in rule]
    assert found == [
        "-p tcp -m statistic --mode random --probability 0.75000000000 -j DNAT --to-destination 10.244.1.2:8080",
        "-p tcp -j DNAT --to-destination 10.244.1.3:8080",
    ]


def test_the_output_of_a_save_reads_back() -> None:
    xtables = FakeXtables()
    make_backend(xtables).sync(planned(WEB))
    assert read_save(xtables.save("ip")) == xtables.chains["ip"]


def test_chains_have_names_that_the_kernel_takes() -> None:
    xtables = FakeXtables()
    make_backend(xtables).sync(planned(WEB))
    assert max(len(chain) for _, chain in xtables.chains["ip"]) <= 28


def test_where_the_kernel_cannot_remember_clients_services_work_without_and_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Forgetful(FakeXtables):
        def restore(self, family: str, text: str) -> None:
            if "-m recent" in text:
                raise BackendError("Extension recent revision 0 not supported, missing kernel module?")
            super().restore(family, text)

    sticky: World = (make_service(session_affinity="ClientIP"), [make_slice(endpoints=["10.244.1.2", "10.244.1.3"])])
    for known_at_start in (True, False):
        xtables, planner = Forgetful(), Planner(NODE)
        backend = make_backend(xtables)
        if known_at_start:
            plan_one(planner, sticky)
            planner.take()
            backend.sync(planner.plan())
        else:
            backend.sync(planner.plan())
            plan_one(planner, sticky)
            backend.apply(planner.take())
        assert sum("DNAT --to" in rule for rules in xtables.chains["ip"].values() for rule in rules) == 2
        assert "cannot remember clients" in capsys.readouterr().err
        assert set(backend.limits) == {"SessionAffinityNotKept"}


def test_another_process_looks_and_writes_nothing() -> None:
    class ReadOnly(FakeXtables):
        def restore(self, family: str, text: str) -> None:
            raise AssertionError(text)

    sticky: World = (make_service(session_affinity="ClientIP"), [make_slice(endpoints=["10.244.1.2", "10.244.1.3"])])
    xtables, looked_at = FakeXtables(), ReadOnly()
    make_backend(xtables).sync(planned(sticky))
    looked_at.chains = xtables.chains
    assert make_backend(looked_at).check(planned(sticky)) == ()
    assert make_backend(looked_at).check(planned(sticky, WEB)) != ()
