"""Changing a plan Service by Service gives what planning everything afresh gives, and the kernel accepts every step."""

from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.nft.core.objects import ElementValue
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.core.fragment import SetId
from pilotage.proxy.core.layout import Surroundings, sets, table
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Plan, Planner, difference
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

Elements: TypeAlias = dict[SetId, dict[bytes, ElementValue]]

NODE = NodeView(name="n1", zone="zone-a")
NAMES = ("a", "b", "c")
# Few addresses and ports, so that Services collide and counts repeat.
EXTERNAL = st.lists(st.sampled_from(["198.51.100.7", "198.51.100.8", "10.96.0.1"]), max_size=2, unique=True)
ENDPOINTS = st.lists(
    st.builds(
        lambda host, node, state: f"10.244.{node}.{host}@n{node}{state}",
        st.integers(2, 5),
        st.integers(1, 2),
        st.sampled_from(["", "", "", "!", "~", "-"]),
    ),
    max_size=5,
)


@st.composite
def worlds(draw: st.DrawFn, name: str) -> tuple[Service, list[EndpointSlice]]:
    number = NAMES.index(name) + 1
    spec: dict[str, Any] = {
        "type": draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
        "external_ips": tuple(draw(EXTERNAL)),
        "session_affinity": draw(st.sampled_from(["None", "ClientIP"])),
        "internal_traffic_policy": draw(st.sampled_from(["Cluster", "Local"])),
        "external_traffic_policy": draw(st.sampled_from(["Cluster", "Local"])),
        "load_balancer_source_ranges": tuple(
            draw(st.sampled_from([(), ("192.0.2.0/24",), ("10.0.0.0/8", "10.1.0.0/16")]))
        ),
        "health_check_node_port": draw(st.sampled_from([0, 31000])),
    }
    protocol = draw(st.sampled_from(["", "/UDP"]))
    ports = draw(st.sampled_from([[f"80@30080{protocol}"], [f"x:80{protocol}", "y:81@30081"], ["80", "80@30080"]]))
    service = make_service(
        name,
        f"10.96.0.{number}",
        ports,
        ingress=draw(st.sampled_from([[], [f"10.89.200.{number}"], ["10.89.200.9"]])),
        created=draw(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
        **spec,
    )
    targets = draw(st.sampled_from([["8080"], ["8080/UDP"], ["x:8080", "y:9090"], ["x:8080/UDP", "y:9090"]]))
    return service, [make_slice(name, draw(ENDPOINTS), targets)]


STEPS = st.lists(
    st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), st.none() | worlds(name))), max_size=8
)
State = dict[str, tuple[Service, list[EndpointSlice]]]


def settle(planner: Planner, state: State, dirty: set[str]) -> None:
    """As the proxier does: plan what is marked until nothing asks to be planned again."""
    for _ in range(100):
        if not dirty:
            return
        key = dirty.pop()
        found = state.get(key.removeprefix("default/"))
        if found is None:
            dirty |= planner.update(key, ())
        else:
            ports = service_ports(*found)
            dirty |= planner.update(key, ports, age=found[0].metadata.creation_timestamp)
    raise AssertionError("planning does not settle")


def afresh(state: State) -> Planner:
    planner = Planner(NODE)
    settle(planner, state, {f"default/{name}" for name in state})
    return planner


PARTS = [(family, one.name) for family in ("ip", "ip6") for one in sets(family).planned()]


def kernel(backend: FakeBackend) -> Elements:
    content = backend.nft.ruleset.tables
    return {part: dict(found) for part in PARTS if (found := content[table(part[0])].elements[part[1]])}


def filled(plan: Plan) -> Elements:
    return {part: dict(found) for part, found in plan.elements.items() if found}


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_incremental_equals_whole_and_the_kernel_follows(steps: list[tuple[str, Any]]) -> None:
    backend = FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16",)))
    planner, state = Planner(NODE), State()
    backend.sync(planner.plan())
    for name, world in steps:
        if world is None:
            state.pop(name, None)
        else:
            state[name] = world
        settle(planner, state, {f"default/{name}"})
        backend.apply(planner.take())
        whole = afresh(state)
        assert planner.plan() == whole.plan()
        assert (planner.udp, planner.sticky, planner.health) == (whole.udp, whole.sticky, whole.health)
        assert kernel(backend) == filled(whole.plan())
        assert {part: found for part in PARTS if (found := planner.elements_of(part))} == filled(whole.plan())


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_a_batch_of_changes_ends_where_single_changes_end(steps: list[tuple[str, Any]]) -> None:
    backend = FakeBackend(surroundings=Surroundings(cluster_cidrs=("10.244.0.0/16",)))
    planner, state = Planner(NODE), State()
    backend.sync(planner.plan())
    dirty: set[str] = set()
    for name, world in steps:
        if world is None:
            state.pop(name, None)
        else:
            state[name] = world
        dirty.add(f"default/{name}")
        settle(planner, state, dirty)
    backend.apply(planner.take())
    assert kernel(backend) == filled(afresh(state).plan())


@given(STEPS, STEPS)
@settings(max_examples=50, deadline=None)
def test_the_difference_of_two_plans_leads_from_one_to_the_other(one: list[Any], other: list[Any]) -> None:
    old, new = (afresh({name: world for name, world in steps if world}).plan() for steps in (one, other))
    delta = difference(old, new)
    result = {set_id: dict(content) for set_id, content in old.elements.items()}
    for set_id, gone in delta.deleted.items():
        for key in gone:
            del result[set_id][key]
    for set_id, come in delta.added.items():
        for key, value in come.items():
            assert key not in result.get(set_id, {})
            result.setdefault(set_id, {})[key] = value
    assert {set_id: content for set_id, content in result.items() if content} == dict(new.elements)
    assert (old.chains | delta.new_chains) - delta.old_chains == new.chains
    assert not difference(new, Plan(elements=result, chains=new.chains))
