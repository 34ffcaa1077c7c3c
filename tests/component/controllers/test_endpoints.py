"""EndpointSlices and Endpoints follow pods."""

import asyncio
from typing import Any

from pilotage.api.core_v1 import Endpoints, Event, Node, Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "localhost/app"}
    metadata = {"name": name, "labels": {"app": "web"}}
    body = {"containers": [container], "nodeName": "n1", **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def slices(world: Any, name: str = "web") -> list[EndpointSlice]:
    found = [item for item in world.informers[EndpointSlice].list() if item.service_name == name]
    return sorted(found, key=lambda item: item.metadata.name)


def states(world: Any, name: str = "web") -> dict[str, tuple[bool | None, bool | None, bool | None]]:
    """Address → ready, serving, terminating."""
    return {
        endpoint.addresses[0]: (endpoint.conditions.ready, endpoint.conditions.serving, endpoint.conditions.terminating)
        for item in slices(world, name)
        for endpoint in item.endpoints
    }


async def test_an_endpoint_lives_through_its_pods_conditions(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Endpoints)
    await world.make_node("n1", zone="zone-b")
    await world.create(service())
    await world.until(lambda: len(slices(world)) == 1 and not slices(world)[0].endpoints)
    await world.create(pod("a"))
    made = await world.until(lambda: world.informers[Pod].get("a", "default"))
    await world.set_pod(made, ready=False, ip="10.244.1.7")
    await world.until(lambda: states(world) == {"10.244.1.7": (False, False, False)})
    await world.set_pod(made, ip="10.244.1.7")
    await world.until(lambda: states(world) == {"10.244.1.7": (True, True, False)})
    found = slices(world)[0]
    endpoint = found.endpoints[0]
    assert (endpoint.node_name, endpoint.zone) == ("n1", "zone-b")
    assert (endpoint.target_ref.kind, endpoint.target_ref.name) == ("Pod", "a")
    assert [(port.name, port.port) for port in found.ports] == [("http", 8080)]
    assert found.metadata.labels["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    assert "endpoints.kubernetes.io/last-change-trigger-time" in found.metadata.annotations
    await world.until(
        lambda: (
            (e := world.informers[Endpoints].get("web", "default"))
            and [a.ip for s in e.subsets for a in s.addresses] == ["10.244.1.7"]
        )
    )
    await world.client.delete(Pod, "a", namespace="default")
    await world.until(lambda: states(world) == {"10.244.1.7": (False, True, True)})
    await world.end_pod(made)
    await world.until(lambda: states(world) == {} and len(slices(world)) == 1)
    await world.until(lambda: not world.informers[Endpoints].get("web", "default").subsets)


async def test_named_ports_differ_by_pod(world: Any) -> None:
    await world.follow(Pod, EndpointSlice)
    await world.create(service(ports=[{"name": "http", "port": 80, "targetPort": "web"}]))
    for index, number in enumerate((8080, 9090)):
        port = {"name": "web", "containerPort": number}
        await world.create(pod(f"p{index}", containers=[{"name": "main", "image": "x", "ports": [port]}]))
        made = await world.until(lambda: world.informers[Pod].get(f"p{index}", "default"))  # noqa: B023
        await world.set_pod(made, ip=f"10.244.1.{index + 1}")
    await world.until(lambda: len(states(world)) == 2)
    await world.until(lambda: sorted(port.port for item in slices(world) for port in item.ports) == [8080, 9090])


async def test_a_deployments_churn_is_followed_to_the_end(world: Any, agents: Any, workload: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service)
    await world.create(service())
    await world.create(workload("Deployment", "web", replicas=12))

    def matches() -> bool:
        ready = {item.status.pod_ip for item in world.pods(app="web") if item.status.is_ready}
        return {ip for ip, state in states(world).items() if state[0]} == ready

    await world.until(lambda: len(states(world)) == 12 and matches())
    for name in [item.metadata.name for item in world.pods(app="web")][::2]:
        await world.client.delete(Pod, name, namespace="default")
    await world.until(
        lambda: (
            len(world.pods(app="web")) == 12
            and all(item.status.is_ready for item in world.pods(app="web"))
            and len(states(world)) == 12
            and matches()
        )
    )
    assert len(slices(world)) == 1


async def test_slices_go_with_their_service(world: Any) -> None:
    await world.follow(EndpointSlice, Endpoints)
    await world.create(service())
    await world.until(lambda: slices(world) and world.informers[Endpoints].get("web", "default"))
    await world.client.delete(Service, "web", namespace="default")
    await world.until(lambda: not slices(world) and not world.informers[Endpoints].get("web", "default"))


async def test_a_changed_selector_moves_to_other_pods(world: Any) -> None:
    await world.follow(Pod, EndpointSlice)
    await world.create(service())
    for name, app in (("a", "web"), ("b", "api")):
        document = pod(name)
        document["metadata"]["labels"] = {"app": app}
        await world.create(document)
        made = await world.until(lambda: world.informers[Pod].get(name, "default"))  # noqa: B023
        await world.set_pod(made, ip="10.244.1.1" if name == "a" else "10.244.1.2")
    await world.until(lambda: list(states(world)) == ["10.244.1.1"])
    await world.client.patch(Service, "web", {"spec": {"selector": {"app": "api"}}}, namespace="default")
    await world.until(lambda: list(states(world)) == ["10.244.1.2"])


async def test_a_service_without_selector_is_left_alone(world: Any) -> None:
    await world.follow(EndpointSlice, Service)
    await world.create(service("hand", selector=None))
    written = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "hand-1", "labels": {"kubernetes.io/service-name": "hand"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"port": 80}],
    }
    await world.create(written)
    await world.create(service("other"))
    await world.until(lambda: slices(world, "other"))  # the controller has been at work meanwhile
    assert [item.metadata.name for item in slices(world, "hand")] == ["hand-1"]


async def test_hand_written_endpoints_are_mirrored_and_followed(world: Any) -> None:
    await world.follow(EndpointSlice, Endpoints, Service)
    await world.create(service("db", selector=None))
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "labels": {"team": "data"}},
        "subsets": [
            {"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 5432}]}
        ],
    }
    await world.create(document)
    await world.until(
        lambda: states(world, "db") == {"192.0.2.1": (True, None, None), "192.0.2.2": (False, None, None)}
    )
    (made,) = slices(world, "db")
    assert made.metadata.labels["team"] == "data"
    assert made.ports[0].port == 5432
    body = {"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 5432}]}]}
    await world.client.patch(Endpoints, "db", body, namespace="default")
    await world.until(lambda: states(world, "db") == {"192.0.2.9": (True, None, None)})
    skip = {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}}
    await world.client.patch(Endpoints, "db", skip, namespace="default")
    await world.until(lambda: not slices(world, "db"))
    await world.client.patch(
        Endpoints,
        "db",
        {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": None}}},
        namespace="default",
    )
    await world.until(lambda: slices(world, "db"))
    # Now the Service finds its own pods: what was written by hand makes way.
    await world.client.patch(Service, "db", {"spec": {"selector": {"app": "db"}}}, namespace="default")
    manager = "endpointslice.kubernetes.io/managed-by"
    await world.until(
        lambda: [item.metadata.labels[manager] for item in slices(world, "db")] == ["endpointslice-controller.k8s.io"]
    )


async def test_hints_say_for_whom_an_endpoint_is_meant(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service)
    await world.make_node("n1", zone="zone-b")
    await world.create(service(trafficDistribution="PreferSameNode"))
    await world.create(pod("a"))
    made = await world.until(lambda: world.informers[Pod].get("a", "default"))
    await world.set_pod(made, ip="10.244.1.7")

    def hints() -> tuple[list[str], list[str]]:
        found = [endpoint.hints for item in slices(world) for endpoint in item.endpoints]
        return [zone.name for hint in found for zone in hint.for_zones], [
            node.name for hint in found for node in hint.for_nodes
        ]

    await world.until(lambda: hints() == (["zone-b"], ["n1"]))
    await world.client.patch(Service, "web", {"spec": {"trafficDistribution": "PreferClose"}}, namespace="default")
    await world.until(lambda: hints() == (["zone-b"], []))
    await world.client.patch(Service, "web", {"spec": {"trafficDistribution": None}}, namespace="default")
    await world.until(lambda: hints() == ([], []))


def held_back(world: Any) -> str:
    return " ".join(item.metadata.annotations.get("pilotage.dev/held-back", "") for item in slices(world))


async def test_a_pod_that_fails_again_and_again_waits_and_everything_else_does_not(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service, Event)
    await world.create(service())
    made = {}
    for index, name in enumerate("abc"):
        await world.create(pod(name))
        made[name] = await world.until(lambda: world.informers[Pod].get(name, "default"))  # noqa: B023
        await world.set_pod(made[name], ip=f"10.244.1.{index + 1}")
    await world.until(lambda: [state[0] for state in states(world).values()] == [True] * 3)
    for times in range(3):
        await world.set_pod(made["a"], ready=False)
        await world.until(lambda: states(world)["10.244.1.1"] == (False, False, False))
        await world.set_pod(made["a"])
        if times < 2:
            await world.until(lambda: states(world)["10.244.1.1"] == (True, True, False))
    await world.until(lambda: states(world)["10.244.1.1"] == (False, True, False))
    assert held_back(world) == "10.244.1.1 stopped being ready 3 times in 30 min, must stay ready 10 s"
    await world.until(lambda: [e for e in world.informers[Event].list() if e.reason == "EndpointHeldBack"])
    # Another pod goes, and with it half of what is ready would wait: nobody's traffic waits for that.
    await world.set_pod(made["b"], ready=False)
    await world.until(lambda: states(world)["10.244.1.2"] == (False, False, False))
    await world.set_pod(made["c"], ready=False)
    await world.until(lambda: states(world)["10.244.1.1"] == (True, True, False) and not held_back(world))


async def test_a_service_may_opt_out_of_waiting(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service)
    await world.create(service())
    await world.client.patch(
        Service, "web", {"metadata": {"annotations": {"pilotage.dev/churn-damping": "disabled"}}}, namespace="default"
    )
    for index, name in enumerate("ab"):
        await world.create(pod(name))
        made = await world.until(lambda: world.informers[Pod].get(name, "default"))  # noqa: B023
        await world.set_pod(made, ip=f"10.244.1.{index + 1}")
    for ready in (False, True) * 4:
        await world.set_pod(made, ready=ready)
        await world.until(lambda: states(world).get("10.244.1.2", ("",))[0] is ready)  # noqa: B023


async def test_many_pods_that_become_ready_at_once_are_few_versions_of_a_slice(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service)
    await world.create(service())
    await world.until(lambda: slices(world))
    versions: set[str] = set()
    world.informers[EndpointSlice].add_handler(
        lambda old, new: versions.add(new.metadata.resource_version) if new is not None else None
    )
    for index in range(60):
        await world.create(pod(f"p{index:02}"))
    made = await world.until(lambda: len(found := world.pods(app="web")) == 60 and found)
    await asyncio.gather(*(world.set_pod(item, ip=f"10.244.1.{index + 1}") for index, item in enumerate(made)))
    await world.until(lambda: [state[0] for state in states(world).values()] == [True] * 60)
    assert len(versions) < 60
    versions.clear()
    # Whoever goes is gone at once, however soon after the last write.
    await world.set_pod(made[-1], ready=False)
    await world.until(lambda: not states(world)["10.244.1.60"][0])
    assert len(versions) == 1


async def test_hints_by_processors_or_the_reason_why_not(world: Any) -> None:
    await world.follow(Pod, EndpointSlice, Service, Event)
    await world.make_node("n1", zone="zone-a")
    document = service()
    document["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    await world.create(document)

    def events() -> list[tuple[str, str]]:
        return [(event.reason, event.message) for event in world.informers[Event].list()]

    one_zone = ("TopologyAwareHintsDisabled", "Nodes only ready in one zone, addressType: IPv4")
    await world.until(lambda: one_zone in events())
    await world.make_node("n2", zone="zone-b")
    for index in range(4):
        await world.create(pod(f"p{index}"))
        made = await world.until(lambda: world.informers[Pod].get(f"p{index}", "default"))  # noqa: B023
        await world.set_pod(made, ip=f"10.244.1.{index + 1}")

    def shares() -> list[str]:
        found = [endpoint.hints.for_zones for item in slices(world) for endpoint in item.endpoints]
        return sorted(zone.name for meant in found for zone in meant)

    await world.until(lambda: shares() == ["zone-a", "zone-a", "zone-b", "zone-b"])
    enabled = ("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled, addressType: IPv4")
    await world.until(lambda: enabled in events())
    await world.client.delete(Node, "n2")
    await world.until(lambda: not shares())
