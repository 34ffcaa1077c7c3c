"""The ADS stream against a client that behaves like Envoy, and the corners that a real Envoy seldom shows."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from pilotage.xds.core.resource import Resource, ResourceType, Snapshot
from pilotage.xds.core.stream import (
    GATE_TIMEOUT_S,
    RESPONSE_RESOURCES_MAX,
    Applied,
    DeltaStream,
    Event,
    Rejected,
)

CLUSTER, ENDPOINT, LISTENER, SECRET, ROUTE = ResourceType


def resource(type_: ResourceType, name: str, content: str = "") -> Resource:
    """Any message will do: the stream never looks inside."""
    return Resource.of(type_, name, cluster_pb2.Cluster(name=name, alt_stat_name=content))


def snapshot(version: int, *resources: Resource) -> Snapshot:
    return Snapshot.of(version, resources)


def service(name: str, content: str = "") -> tuple[Resource, Resource]:
    return resource(CLUSTER, name), resource(ENDPOINT, name, content)


def table(content: str = "") -> tuple[Resource, Resource]:
    return resource(LISTENER, "http"), resource(ROUTE, "http", content)


@dataclass
class FakeEnvoy:
    """Subscribes like Envoy: everything of clusters and listeners, then by name what those need.

    Like Envoy it acknowledges clusters only once they are warm, and does not ask again for endpoints it knows.
    """

    stream: DeltaStream
    refuses: set[tuple[ResourceType, str, str]] = field(default_factory=set)  # type, name, version
    held: dict[ResourceType, dict[str, str]] = field(default_factory=lambda: {type_: {} for type_ in ResourceType})
    log: list[str] = field(default_factory=list)  # "+CLUSTER a", "-CLUSTER a" in the order of arrival
    now: float = 0.0
    slow: bool = False  # messages wait in the two queues until `step` moves them
    to_server: deque[discovery_pb2.DeltaDiscoveryRequest] = field(default_factory=deque)
    from_server: deque[discovery_pb2.DeltaDiscoveryResponse] = field(default_factory=deque)
    warming: set[str] = field(default_factory=set)  # clusters without endpoints
    withheld: str = ""  # the nonce of clusters not yet acknowledged
    asked: dict[ResourceType, set[str]] = field(default_factory=lambda: {type_: set() for type_ in ResourceType})

    def connect(self) -> "FakeEnvoy":
        for type_ in (CLUSTER, LISTENER, ENDPOINT, SECRET, ROUTE):
            if type_.parent is None or self.asked[type_]:
                self.request(type_, subscribe=sorted(self.asked[type_]), initial_resource_versions=self.held[type_])
        return self

    def request(self, type_: ResourceType, *, subscribe: list[str] | None = None, **fields: object) -> None:
        message = discovery_pb2.DeltaDiscoveryRequest(
            node={"id": "envoy-1"}, type_url=type_.value, resource_names_subscribe=subscribe or [], **fields
        )
        if self.slow:
            self.to_server.append(message)
        else:
            self.stream.receive(message, self.now)

    def step(self, dice: random.Random) -> bool:
        """On a slow wire: one message moves on, or the server looks what to send; False if nothing can happen."""
        self.from_server.extend(self.stream.data_to_send(self.now))
        ways = [way for way in (self.to_server, self.from_server) if way]
        if not ways:
            return False
        if dice.choice(ways) is self.to_server:
            self.stream.receive(self.to_server.popleft(), self.now)
        else:
            self.take(self.from_server.popleft())
        return True

    def settle(self) -> list[Event]:
        """Answer until nothing more comes; returns the events."""
        while responses := self.stream.data_to_send(self.now):
            for response in responses:
                self.take(response)
        events = []
        while (event := self.stream.next_event()) is not None:
            events.append(event)
        return events

    def take(self, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        type_ = ResourceType(response.type_url)
        refused = [item.name for item in response.resources if (type_, item.name, item.version) in self.refuses]
        if not refused:
            for item in response.resources:
                self.held[type_][item.name] = item.version
                self.log.append(f"+{type_.name} {item.name}")
            for name in response.removed_resources:
                self.held[type_].pop(name, None)
                self.log.append(f"-{type_.name} {name}")
        self.follow(type_)
        names = {item.name for item in response.resources}
        if type_ is CLUSTER and not refused:
            self.warming, self.withheld = names, response.nonce
        else:
            error = status_pb2.Status(code=3, message=f"refused: {refused}") if refused else None
            self.request(type_, response_nonce=response.nonce, error_detail=error)
        if type_ is ENDPOINT:
            self.warming -= names | set(response.removed_resources)  # "there is none" ends the waiting too
        if self.withheld and not self.warming:
            self.request(CLUSTER, response_nonce=self.withheld)
            self.withheld = ""

    def follow(self, parent: ResourceType) -> None:
        """Ask by name for what the parents need: a child of the same name, a secret only for "https"."""
        for child in ResourceType:
            if child.parent is parent:
                wanted = {name for name in self.held[parent] if child is not SECRET or name == "https"}
                new, gone = wanted - self.asked[child], self.asked[child] - wanted
                if new or gone:
                    self.asked[child] = wanted
                    for name in gone:
                        self.held[child].pop(name, None)
                    self.request(child, subscribe=sorted(new), resource_names_unsubscribe=sorted(gone))

    def versions(self) -> dict[ResourceType, dict[str, str]]:
        return self.held


def expected(target: Snapshot) -> dict[ResourceType, dict[str, str]]:
    return {
        type_: {name: item.version for name, item in resources.items()} for type_, resources in target.resources.items()
    }


@pytest.fixture
def envoy() -> FakeEnvoy:
    return FakeEnvoy(DeltaStream()).connect()


def test_clusters_and_endpoints_come_before_what_leads_to_them(envoy: FakeEnvoy) -> None:
    https = (resource(LISTENER, "https"), resource(SECRET, "https"), resource(ROUTE, "https"))
    target = snapshot(1, *service("a"), *service("b"), *https)
    envoy.stream.set_snapshot(target, 0.0)
    events = envoy.settle()
    assert envoy.log == [
        "+CLUSTER a", "+CLUSTER b", "+ENDPOINT a", "+ENDPOINT b", "+LISTENER https", "+SECRET https", "+ROUTE https",
    ]  # fmt: skip
    assert events == [Applied(version=1, rejected=())]
    assert envoy.stream.node_id == "envoy-1"


def test_new_cluster_is_warm_before_the_route_and_the_old_one_goes_after_it(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("old"), *table("to old")), 0.0)
    envoy.settle()
    envoy.log.clear()
    target = snapshot(2, *service("new"), *table("to new"))
    envoy.stream.set_snapshot(target, 0.0)
    assert envoy.settle() == [Applied(version=2, rejected=())]
    assert envoy.log == ["+CLUSTER new", "+ENDPOINT new", "+ROUTE http", "-CLUSTER old"]
    assert envoy.versions() == expected(target)


def test_endpoint_churn_is_one_message(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a", "one"), *service("b"), *table()), 0.0)
    envoy.settle()
    envoy.log.clear()
    envoy.stream.set_snapshot(snapshot(2, *service("a", "two"), *service("b"), *table()), 0.0)
    assert envoy.settle() == [Applied(version=2, rejected=())]
    assert envoy.log == ["+ENDPOINT a"]


def test_changed_cluster_gets_its_endpoints_again(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a"), *table()), 0.0)
    envoy.settle()
    envoy.log.clear()
    envoy.stream.set_snapshot(snapshot(2, resource(CLUSTER, "a", "now h2c"), resource(ENDPOINT, "a"), *table()), 0.0)
    envoy.settle()
    assert envoy.log == ["+CLUSTER a", "+ENDPOINT a"]


def test_removed_listener_goes_before_its_routes_and_clusters(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a"), *table()), 0.0)
    envoy.settle()
    envoy.log.clear()
    envoy.stream.set_snapshot(snapshot(2), 0.0)
    assert envoy.settle() == [Applied(version=2, rejected=())]
    assert envoy.log == ["-LISTENER http", "-CLUSTER a"]
    assert envoy.versions() == expected(snapshot(2))


def test_reconnected_client_is_sent_only_what_changed_meanwhile(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a"), *service("b"), *table()), 0.0)
    envoy.settle()
    envoy.log.clear()
    envoy.stream = DeltaStream()
    envoy.connect()
    target = snapshot(2, *service("a", "moved"), *table())
    envoy.stream.set_snapshot(target, 0.0)
    assert envoy.settle() == [Applied(version=2, rejected=())]
    assert envoy.log == ["+ENDPOINT a", "-CLUSTER b"]
    assert envoy.versions() == expected(target)


def test_nothing_is_sent_before_the_first_snapshot(envoy: FakeEnvoy) -> None:
    assert envoy.stream.data_to_send(0.0) == []
    assert envoy.stream.next_timer() is None


def test_refused_resources_are_singled_out_and_their_neighbours_applied(envoy: FakeEnvoy) -> None:
    pairs = [service(f"s{number:02}") for number in range(40)]
    target = snapshot(1, *(item for pair in pairs for item in pair), *table())
    bad = {"s07", "s31"}
    envoy.refuses = {(CLUSTER, name, target.resources[CLUSTER][name].version) for name in bad}
    envoy.stream.set_snapshot(target, 0.0)
    events = envoy.settle()
    assert {(event.type, event.name) for event in events if isinstance(event, Rejected)} == {
        (CLUSTER, name) for name in bad
    }
    applied = events[-1]
    assert isinstance(applied, Applied)
    assert [item.name for item in applied.rejected] == ["s07", "s31"]
    assert "refused" in applied.rejected[0].message
    assert envoy.held[CLUSTER].keys() == target.resources[CLUSTER].keys() - bad
    assert envoy.held[ROUTE] == expected(target)[ROUTE]


def test_refused_route_keeps_what_the_old_one_uses(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("old"), *table("good")), 0.0)
    envoy.settle()
    bad = snapshot(2, *service("new"), *table("bad"))
    envoy.refuses = {(ROUTE, "http", bad.resources[ROUTE]["http"].version)}
    envoy.stream.set_snapshot(bad, 0.0)
    assert [type(event) for event in envoy.settle()] == [Rejected, Applied]
    assert "old" in envoy.held[CLUSTER]
    repaired = snapshot(3, *service("new"), *table("repaired"))
    envoy.stream.set_snapshot(repaired, 0.0)
    assert envoy.settle() == [Applied(version=3, rejected=())]
    assert envoy.versions() == expected(repaired)


def test_refused_content_is_not_sent_again_but_going_back_is_no_refusal(envoy: FakeEnvoy) -> None:
    good = (*service("a"), *table("good"))
    bad = snapshot(2, *service("a"), *table("bad"))
    envoy.stream.set_snapshot(snapshot(1, *good), 0.0)
    envoy.settle()
    envoy.refuses = {(ROUTE, "http", bad.resources[ROUTE]["http"].version)}
    envoy.stream.set_snapshot(bad, 0.0)
    envoy.settle()
    assert envoy.stream.data_to_send(0.0) == []
    envoy.stream.set_snapshot(snapshot(3, *good), 0.0)
    assert envoy.settle() == [Applied(version=3, rejected=())]


def test_client_that_never_asks_for_endpoints_delays_the_rest_but_does_not_stop_it() -> None:
    stream = DeltaStream()
    envoy = FakeEnvoy(stream).connect()
    stream.set_snapshot(snapshot(1, *service("a"), *table()), 0.0)
    clusters, *_ = stream.data_to_send(0.0)
    envoy.request(CLUSTER, response_nonce=clusters.nonce)
    assert stream.data_to_send(0.0) == []
    timer = stream.next_timer()
    assert timer == GATE_TIMEOUT_S
    stream.handle_timer(timer)
    assert [ResourceType(response.type_url) for response in stream.data_to_send(timer)] == [LISTENER]
    assert stream.next_event() is None  # it cannot be said to have applied what it never asked for


def test_everything_is_answered_even_when_it_is_nothing(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1), 0.0)
    for type_ in (CLUSTER, LISTENER):
        (response,) = envoy.stream.data_to_send(0.0)
        assert (ResourceType(response.type_url), len(response.resources)) == (type_, 0)
        envoy.take(response)
    assert envoy.stream.data_to_send(0.0) == []


def test_unknown_name_is_answered_as_not_existing(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1), 0.0)
    envoy.settle()
    envoy.request(ROUTE, subscribe=["nowhere"])
    (response,) = envoy.stream.data_to_send(0.0)
    assert list(response.removed_resources) == ["nowhere"]
    envoy.take(response)
    assert envoy.stream.data_to_send(0.0) == []
    envoy.stream.set_snapshot(snapshot(2, resource(ROUTE, "nowhere")), 0.0)
    (response,) = envoy.stream.data_to_send(0.0)
    assert [item.name for item in response.resources] == ["nowhere"]


def test_asking_again_for_a_name_sends_it_again(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a"), *table()), 0.0)
    envoy.settle()
    envoy.log.clear()
    envoy.request(ENDPOINT, subscribe=["a"])
    envoy.settle()
    assert envoy.log == ["+ENDPOINT a"]


def test_stale_nonce_acknowledges_nothing(envoy: FakeEnvoy) -> None:
    envoy.stream.set_snapshot(snapshot(1, *service("a")), 0.0)
    (response,) = envoy.stream.data_to_send(0.0)
    envoy.request(CLUSTER, response_nonce="no such nonce")
    assert envoy.stream.data_to_send(0.0) == []
    envoy.take(response)
    assert envoy.settle() == [Applied(version=1, rejected=())]


def test_large_snapshot_travels_in_bounded_responses(envoy: FakeEnvoy) -> None:
    count = RESPONSE_RESOURCES_MAX * 2 + 1
    target = snapshot(1, *(item for number in range(count) for item in service(f"s{number}")))
    envoy.stream.set_snapshot(target, 0.0)
    (first,) = envoy.stream.data_to_send(0.0)
    assert len(first.resources) == RESPONSE_RESOURCES_MAX
    envoy.take(first)
    envoy.settle()
    assert envoy.versions() == expected(target)


def test_foreign_type_is_ignored(envoy: FakeEnvoy) -> None:
    envoy.stream.receive(discovery_pb2.DeltaDiscoveryRequest(type_url="type.googleapis.com/foreign"), 0.0)
    envoy.stream.set_snapshot(snapshot(1), 0.0)
    assert envoy.settle() == [Applied(version=1, rejected=())]


@pytest.mark.parametrize("seed", range(60))
def test_any_history_ends_in_the_last_snapshot_and_no_route_ever_points_at_nothing(seed: int) -> None:
    """Random snapshots at random moments, messages that cross on a slow wire; every route names its own cluster.

    No timer fires: whatever happens, nobody waits for something that does not come.
    """
    dice = random.Random(seed)
    envoy = FakeEnvoy(DeltaStream(), slow=True).connect()
    names = ("a", "b", "c", "d")
    routes: dict[str, str] = {}  # version of the route table → the cluster it leads to
    events = []
    for version in range(1, 31):
        chosen = dice.sample(names, dice.randint(1, 4))
        rows = table(f"to {chosen[0]}")
        routes[rows[1].version] = chosen[0]
        protocol = dice.choice(("http", "h2c"))
        clusters = (resource(CLUSTER, name, protocol) for name in chosen)
        endpoints = (resource(ENDPOINT, name, str(dice.randint(0, 2))) for name in chosen)
        target = snapshot(version, *clusters, *endpoints, *rows)
        envoy.stream.set_snapshot(target, 0.0)
        steps = 10_000 if version == 30 else dice.randint(0, 12)
        while steps and envoy.step(dice):
            steps -= 1
            if envoy.held[ROUTE]:
                used = routes[envoy.held[ROUTE]["http"]]
                assert used in envoy.held[CLUSTER] and used in envoy.held[ENDPOINT]
        while (event := envoy.stream.next_event()) is not None:
            events.append(event)
    assert events[-1] == Applied(version=30, rejected=())
    assert envoy.versions() == expected(target)
    assert not envoy.warming
