"""The checks of the demo, in order: each asks something real and says what answered.

A check returns (asked, answered) and raises `CheckError` when the answer is wrong. Adding one is adding a function and
a line to `CHECKS`.
"""

import asyncio
import ipaddress
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pilotage.cli.demo.world import CheckError, Json, World, until

HOST = "shop.example.test"
Check = Callable[[World], Awaitable[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class NamedCheck:
    """One line of the transcript."""

    title: str
    run: Check


def expect(condition: bool, complaint: str) -> None:
    """Raise `CheckError` unless the condition holds."""
    if not condition:
        raise CheckError(complaint)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def resolv_conf(world: World) -> tuple[str, str]:
    text = await world.in_pod("deploy/web", "cat", "/etc/resolv.conf")
    for part in ("nameserver 10.96.0.10", "shop.svc.cluster.local svc.cluster.local cluster.local", "ndots:5"):
        expect(part in text, f"{part!r} is missing in {text!r}")
    return "cat /etc/resolv.conf", " · ".join(text.split("\n")).strip(" ·")


async def dns_cluster_ip(world: World) -> tuple[str, str]:
    address = (await world.objects("service", "api"))["spec"]["clusterIP"]
    outcome = await world.resolve("deploy/web", "api")
    expect(_data(outcome) == [address], f"expected {address}, got {_data(outcome)}")
    return "A api", f"{outcome['canonical_name']} → {address}"


async def dns_search_path(world: World) -> tuple[str, str]:
    outcome = await world.resolve("deploy/web", "web.shop")
    asked = [step["name"] for step in outcome["asked"]]
    expect(asked == ["web.shop.shop.svc.cluster.local.", "web.shop.svc.cluster.local."], f"asked {asked}")
    expect(outcome["asked"][0]["rcode"] == "NXDOMAIN", f"first answer was {outcome['asked'][0]}")
    return "A web.shop", f"{len(asked)} names tried, found {outcome['canonical_name']}"


async def dns_headless(world: World) -> tuple[str, str]:
    pods = await world.ready_pods("db")
    outcome = await world.resolve("deploy/web", "db")
    expect(sorted(_data(outcome)) == sorted(pods.values()), f"expected {pods}, got {_data(outcome)}")
    return "A db", f"{len(pods)} addresses, one per pod: {', '.join(sorted(_data(outcome)))}"


async def dns_stable_name(world: World) -> tuple[str, str]:
    pods = await world.ready_pods("db")
    outcome = await world.resolve("deploy/api", "db-0.db")
    expect(_data(outcome) == [pods["db-0"]], f"expected {pods['db-0']}, got {_data(outcome)}")
    return "A db-0.db", f"{outcome['canonical_name']} → {pods['db-0']}"


async def dns_service_port(world: World) -> tuple[str, str]:
    outcome = await world.resolve("deploy/web", "_http._tcp.api", "SRV")
    [record] = _data(outcome)
    expect(record.split()[2:] == ["80", "api.shop.svc.cluster.local."], f"got {record}")
    return "SRV _http._tcp.api", record


async def dns_external_name(world: World) -> tuple[str, str]:
    outcome = await world.resolve("deploy/api", "legacy")
    chain = [(record["type"], record["data"]) for record in _records(outcome)]
    expect(("CNAME", "legacy.example.test.") in chain and chain[-1][0] == "A", f"got {chain}")
    return "A legacy", " → ".join(data for _, data in chain)


async def dns_reverse(world: World) -> tuple[str, str]:
    address = (await world.objects("service", "web"))["spec"]["clusterIP"]
    name = ipaddress.ip_address(address).reverse_pointer
    outcome = await world.resolve("deploy/web", f"{name}.", "PTR")
    expect(_data(outcome) == ["web.shop.svc.cluster.local."], f"got {_data(outcome)}")
    return f"PTR {address}", _data(outcome)[0]


async def dns_unknown_name(world: World) -> tuple[str, str]:
    outcome = await world.resolve("deploy/web", "nowhere")
    rcodes = [step.get("rcode") for step in outcome["asked"]]
    expect(set(rcodes) == {"NXDOMAIN"}, f"got {rcodes}")
    return "A nowhere", f"NXDOMAIN for all {len(rcodes)} names of the search path"


# ── packets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def environment(world: World) -> tuple[str, str]:
    address = (await world.objects("service", "api"))["spec"]["clusterIP"]
    lines = (await world.in_pod("deploy/metrics", "env")).splitlines()
    found = dict(line.partition("=")[::2] for line in lines)
    wanted = {"API_SERVICE_HOST": address, "API_SERVICE_PORT_HTTP": "80", "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    for name, value in wanted.items():
        expect(found.get(name) == value, f"{name} is {found.get(name)!r}, expected {value!r}")
    return "env", ", ".join(f"{name}={value}" for name, value in wanted.items())


async def cluster_ip_spreads(world: World) -> tuple[str, str]:
    pods = await world.ready_pods("api")
    summary = await world.call_in_pod("deploy/web", "http://api/?upstreams=off", "--count", "60")
    return "GET http://api/ × 60", _spread(world, summary, set(pods), "service/web", "service/api")


async def cluster_ip_tcp_and_udp(world: World) -> tuple[str, str]:
    heard = []
    for scheme in ("tcp", "udp"):
        outcome = await world.call_in_pod("deploy/web", f"{scheme}://api:7000", "--data", "ahoy")
        world.traffic.record(_answer(outcome), "service/web", "service/api")
        heard.append(f"{scheme}: {_pod(outcome)}")
    return "tcp://api:7000, udp://api:7000", ", ".join(heard)


async def whole_chain(world: World) -> tuple[str, str]:
    outcome = await world.call_in_pod("deploy/web", "http://web/")
    answer = _answer(outcome)
    world.traffic.record(answer, "service/web")
    return "GET http://web/", _chain(answer)


async def node_port(world: World) -> tuple[str, str]:
    nodes = (await world.objects("nodes"))["items"]
    heard = []
    for node in nodes:
        address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
        outcome = await world.call_outside(f"http://{address}:30090/")
        world.traffic.record(_answer(outcome), "outside", "service/metrics")
        heard.append(f"{node['metadata']['name']} → {_pod(outcome)}")
    return "GET http://NODE:30090/ from outside, every node", ", ".join(heard)


async def load_balancer(world: World) -> tuple[str, str]:
    service = await world.objects("service", "public")
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    port = service["spec"]["ports"][0]["port"]
    pods = await world.ready_pods(service["spec"]["selector"]["app"])
    url = f"http://{address}:{port}/?upstreams=off"
    summary = await world.call_outside(url, "--count", "30")
    return f"GET http://{address}:{port}/ × 30 from outside", _spread(
        world, summary, set(pods), "outside", "service/public"
    )


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def ingress_http(world: World) -> tuple[str, str]:
    outcome = await world.call_host(f"http://{HOST}/")
    world.traffic.record(_answer(outcome), "outside", "ingress/edge", "service/web")
    return f"GET http://{HOST}/", _chain(_answer(outcome))


async def ingress_https(world: World) -> tuple[str, str]:
    outcome = await world.call_host(f"https://{HOST}/")
    world.traffic.record(_answer(outcome), "outside", "ingress/edge", "service/web")
    return f"GET https://{HOST}/, certificate verified", _chain(_answer(outcome))


async def ingress_paths(world: World) -> tuple[str, str]:
    heard = []
    for path, service in (("/api/items", "api"), ("/metrics", "metrics")):
        outcome = await world.call_host(f"https://{HOST}{path}")
        expect(_pod(outcome).startswith(f"{service}-"), f"{path} was answered by {_pod(outcome)}")
        world.traffic.record(_answer(outcome), "outside", "ingress/edge", f"service/{service}")
        heard.append(f"{path} → {_pod(outcome)}")
    return f"GET https://{HOST}/api/items and /metrics", ", ".join(heard)


async def ingress_unknown_host(world: World) -> tuple[str, str]:
    outcome = await world.call_host("http://nobody.example.test/")
    expect(outcome.get("status") == 404, f"got {outcome.get('status') or outcome.get('error')}")
    return "GET http://nobody.example.test/", "404, as nobody serves that host"


async def grpc(world: World) -> tuple[str, str]:
    pods = await world.ready_pods("orders")
    summary = await world.call_host("grpcs://orders.example.test", "--count", "20")
    return "gRPC orders.example.test × 20, certificate verified", _spread(
        world, summary, set(pods), "outside", "ingress/edge", "service/orders"
    )


# ── change ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def scale_under_traffic(world: World) -> tuple[str, str]:
    """3 → 5 → 1 while requests run; not one of them may fail."""
    answered: Counter[str] = Counter()
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            summary = await world.call_host(f"http://{HOST}/api?upstreams=off", "--count", "100", "--parallel", "2")
            expect("errors" not in summary, f"requests failed while scaling: {summary.get('errors')}")
            expect(set(summary["statuses"]) == {"200"}, f"requests failed while scaling: {summary['statuses']}")
            answered.update(summary["pods"])

    async def scale() -> list[str]:
        steps = []
        try:
            for replicas in (5, 1):
                started = time.monotonic()
                await world.kubectl("scale", "deployment/api", f"--replicas={replicas}")
                await world.kubectl("rollout", "status", "deployment/api", "--timeout=60s")

                async def followed(replicas: int = replicas) -> bool:
                    return len(await world.endpoints("api")) == replicas

                await until(f"{replicas} endpoints", followed)
                steps.append(f"{replicas} after {time.monotonic() - started:.1f} s")
        finally:
            stop.set()
        return steps

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            scaled = group.create_task(scale())
    except* CheckError as failures:
        raise failures.exceptions[0] from None
    world.traffic.record_spread(answered, "outside", "ingress/edge", "service/api")
    return (
        "scale api 3 → 5 → 1 under traffic",
        f"{', '.join(scaled.result())}; {answered.total()} requests, none failed",
    )


async def container_comes_back(world: World) -> tuple[str, str]:
    [(pod, address)] = (await world.ready_pods("metrics")).items()
    started = time.monotonic()
    await world.call_in_pod("deploy/web", f"http://{address}:9090/exit?code=1", "--timeout", "2")

    async def restarted() -> bool:
        status = (await world.objects("pod", pod))["status"]
        container = status["containerStatuses"][0]
        return int(container["restartCount"]) == 1 and bool(container["ready"])

    await until(f"{pod} restarted and ready", restarted)
    took_s = time.monotonic() - started
    outcome = await world.call_in_pod("deploy/web", "http://metrics:9090/")
    expect(_pod(outcome) == pod, f"answered by {_pod(outcome)}")
    return f"crash the container of {pod}", f"restarted, ready and answering after {took_s:.1f} s"


async def pod_deletion_is_followed(world: World) -> tuple[str, str]:
    """Endpoints, DNS and gateway follow when a pod goes and its successor comes."""
    before = await world.ready_pods("db")
    started = time.monotonic()
    await world.kubectl("delete", "pod", "db-1", "--wait=false")
    gone_s = await until("db-1 out of the endpoints", lambda: _lacks(world.endpoints("db"), before["db-1"]))
    outcome = await world.resolve("deploy/web", "db")
    expect(before["db-1"] not in _data(outcome), f"DNS still answers {before['db-1']}")

    async def back() -> bool:
        return "db-1" in await world.ready_pods("db") and len(await world.endpoints("db")) == 2

    await until("db-1 back", back)
    back_s = time.monotonic() - started
    after = await world.ready_pods("db")
    outcome = await world.resolve("deploy/web", "db-1.db")
    expect(_data(outcome) == [after["db-1"]], f"DNS answers {_data(outcome)}, the pod has {after['db-1']}")
    return (
        "delete pod db-1",
        f"out of endpoints and DNS after {gone_s:.1f} s, back as {after['db-1']} after {back_s:.1f} s",
    )


async def gateway_follows(world: World) -> tuple[str, str]:
    before = set(await world.ready_pods("web"))
    victim = min(before)
    await world.kubectl("delete", "pod", victim, "--wait=false")

    async def replaced() -> bool:
        now = set(await world.ready_pods("web"))
        return victim not in now and len(now) == 2 and len(await world.endpoints("web")) == 2

    await until("a successor for the deleted pod", replaced)
    now = set(await world.ready_pods("web"))
    summary = await world.call_host(f"https://{HOST}/?upstreams=off", "--count", "40")
    heard = _spread(world, summary, now, "outside", "ingress/edge", "service/web")
    return f"delete pod {victim}", f"the gateway serves its successor: {heard}"


CHECKS: tuple[NamedCheck, ...] = (
    NamedCheck("pod: resolv.conf", resolv_conf),
    NamedCheck("dns: ClusterIP by short name", dns_cluster_ip),
    NamedCheck("dns: search path", dns_search_path),
    NamedCheck("dns: headless", dns_headless),
    NamedCheck("dns: stable pod name", dns_stable_name),
    NamedCheck("dns: SRV of a named port", dns_service_port),
    NamedCheck("dns: ExternalName", dns_external_name),
    NamedCheck("dns: reverse", dns_reverse),
    NamedCheck("dns: unknown name", dns_unknown_name),
    NamedCheck("pod: Service environment", environment),
    NamedCheck("ClusterIP spreads over all pods", cluster_ip_spreads),
    NamedCheck("ClusterIP carries TCP and UDP", cluster_ip_tcp_and_udp),
    NamedCheck("the whole chain inside", whole_chain),
    NamedCheck("NodePort on every node", node_port),
    NamedCheck("LoadBalancer address", load_balancer),
    NamedCheck("Ingress over HTTP", ingress_http),
    NamedCheck("Ingress over HTTPS", ingress_https),
    NamedCheck("Ingress by path", ingress_paths),
    NamedCheck("Ingress, unknown host", ingress_unknown_host),
    NamedCheck("gRPC through the gateway", grpc),
    NamedCheck("scaling under traffic", scale_under_traffic),
    NamedCheck("a crashed container comes back", container_comes_back),
    NamedCheck("endpoints and DNS follow a pod", pod_deletion_is_followed),
    NamedCheck("the gateway follows a pod", gateway_follows),
)


# ── reading answers ─────────────────────────────────────────────────────────────────────────────────────────────────


def _records(outcome: Json) -> list[Json]:
    """All records of the answer."""
    expect("records" in outcome, f"{outcome.get('name')}: {outcome.get('error')}; asked {outcome.get('asked')}")
    records: list[Json] = outcome["records"]
    return records


def _data(outcome: Json) -> list[str]:
    """The data of the records of the type that was asked for."""
    return [record["data"] for record in _records(outcome) if record["type"] == outcome["type"]]


def _answer(outcome: Json) -> Json:
    expect("error" not in outcome, f"{outcome.get('url')}: {outcome.get('error')}")
    answer = outcome.get("answer")
    expect(isinstance(answer, dict) and "answered_by" in answer, f"{outcome.get('url')} answered {str(outcome)[:300]}")
    assert isinstance(answer, dict)
    return answer


def _pod(outcome: Json) -> str:
    pod: str = _answer(outcome)["answered_by"]["pod"]
    return pod


def _chain(answer: Json) -> str:
    """`web-1 → api-2 → (db-0, outside)`; every link must have answered."""

    def link(answer: Json) -> str:
        below: list[Any] = [_answer(outcome) for outcome in answer.get("upstreams") or ()]
        name = str(answer["answered_by"]["pod"])
        if not below:
            return name
        inner = ", ".join(link(one) for one in below)
        return f"{name} → {inner}" if len(below) == 1 else f"{name} → ({inner})"

    text = link(answer)
    for part in ("api-", "db-0"):
        expect(part in text, f"{part} is missing in the chain {text}: {json.dumps(answer)[:300]}")
    return text


def _spread(world: World, summary: Json, pods: set[str], *path: str) -> str:
    expect("errors" not in summary, f"{summary.get('url')}: {summary.get('errors') or summary.get('error')}")
    answered: dict[str, int] = summary["pods"]
    expect(set(answered) == pods, f"answered by {sorted(answered)}, expected all of {sorted(pods)}")
    world.traffic.record_spread(answered, *path)
    return f"{len(pods)} pods answered: " + ", ".join(f"{pod} {count}" for pod, count in answered.items())


async def _lacks(addresses: Awaitable[set[str]], address: str) -> bool:
    return address not in await addresses
