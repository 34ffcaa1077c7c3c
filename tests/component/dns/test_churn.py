"""Random writes to a real API server and questions without pause: every answer was true at a moment that counts.

The oracle (`testing.dns_oracle`) shares nothing with the server. An answer is right if it is that of some state of the
cluster between "TTL before the question" and its arrival; a name that existed throughout may never be NXDOMAIN.
`PILOTAGE_CHURN_S=1200 pytest --timeout 1500 -o faulthandler_timeout=1500` churns for twenty minutes; the default keeps
the suite quick. The seed is printed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from dataclasses import dataclass
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rdatatype

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client
from pilotage.dns import Config, Server
from pilotage.kit.tasks import task_set
from pilotage.testing.cluster import api_server
from pilotage.testing.dns import endpoint, part, service
from pilotage.testing.dns_oracle import Expected, Oracle, oracle

SECONDS = float(os.environ.get("PILOTAGE_CHURN_S", "8"))
SERVICES = 12
TTL_S = 5.0
NAMESPACE = "default"
Objects = dict[tuple[str, str], Service | EndpointSlice]


@dataclass(slots=True)
class State:
    """One state of the cluster: true from `begins`, when the write was sent, until the next one's `begins` or later."""

    begins: float
    objects: Objects
    ends: float = float("inf")
    made: Oracle | None = None

    def expected(self, name: str, rtype: str) -> Expected:
        if self.made is None:
            values = self.objects.values()
            services = [value for value in values if isinstance(value, Service)]
            self.made = oracle(services, [v for v in values if isinstance(v, EndpointSlice)], [NAMESPACE])
        return self.made.answer(name, rtype)


class History:
    """The states that an answer may still come from."""

    def __init__(self) -> None:
        self.states = [State(0.0, {})]

    def begin(self, objects: Objects) -> None:
        """A write is about to be sent; from now on both states may be seen."""
        self.states.append(State(time.monotonic(), objects))

    def acknowledged(self) -> None:
        """The write is done: the states before it end."""
        now = time.monotonic()
        for state in self.states[:-1]:
            state.ends = min(state.ends, now)
        self.states = [state for state in self.states if state.ends > now - 10 * TTL_S]

    def allowed(self, sent: float, received: float) -> list[State]:
        return [state for state in self.states if state.ends >= sent - TTL_S and state.begins <= received]


class Churn:
    """Writes at random, one after another."""

    def __init__(self, client: Client, history: History, dice: random.Random) -> None:
        self._client, self._history, self._dice = client, history, dice
        # Far more than are alive at a time. The first are taken: the network's own, and the API server's.
        self._addresses = itertools.cycle(range(1 << 8, (1 << 16) - 1))
        self.writes = 0

    async def step(self) -> None:
        dice, before = self._dice, self._history.states[-1].objects
        name = f"s{dice.randrange(SERVICES)}"
        wanted: Service | EndpointSlice
        if dice.random() < 0.4:
            key = ("Service", name)
            wanted = self._service(name)
        else:
            key = ("EndpointSlice", f"{name}-{dice.randrange(2)}")
            ready = [dice.choice([True, True, False]) for _ in range(dice.randrange(1, 4))]
            wanted = part(name, *(self._endpoint(r) for r in ready), name=key[1])
        held = before.get(key)
        kind = type(wanted)
        if held is not None and (dice.random() < 0.5 or kind is Service):
            self._history.begin({k: v for k, v in before.items() if k != key})
            await self._client.delete(kind, held.metadata.name, namespace=NAMESPACE)
        elif held is not None:
            self._history.begin({**before, key: wanted})
            endpoints = [
                {"addresses": list(e.addresses), "hostname": e.hostname, "conditions": {"ready": e.conditions.ready}}
                for e in wanted.endpoints  # type: ignore[union-attr]  # a Service was handled above
            ]
            await self._client.patch(kind, held.metadata.name, {"endpoints": endpoints}, namespace=NAMESPACE)
        else:
            self._history.begin({**before, key: wanted})
            await self._client.create(wanted)
        self._history.acknowledged()
        self.writes += 1

    def _endpoint(self, ready: bool) -> Any:
        number = next(self._addresses)
        hostname = self._dice.choice(["", "h0", "h1"])
        return endpoint(f"10.244.{number >> 8}.{number & 255}", hostname, ready=ready)

    def _service(self, name: str) -> Service:
        number = next(self._addresses)
        match self._dice.choice(["cluster", "headless", "early", "external"]):
            case "cluster":
                return service(name, f"10.96.{number >> 8}.{number & 255}")
            case "external":
                return service(name, external=f"s{self._dice.randrange(SERVICES)}.{NAMESPACE}.svc.cluster.local")
            case kind:
                return service(name, publish_not_ready=kind == "early")


async def questions(server: Server, history: History, dice: random.Random, ended: asyncio.Event) -> tuple[int, int]:
    """Ask without pause and judge every answer. Returns how many were asked, and how many had records."""
    address = server.addresses[0]
    asked = full = 0
    while not ended.is_set():
        base = f"s{dice.randrange(SERVICES)}.{NAMESPACE}.svc.cluster.local."
        name, rtype = dice.choice(
            [(base, "A"), (base, "A"), (base, "AAAA"), (f"_http._tcp.{base}", "SRV"), (f"h0.{base}", "A")]
        )
        sent = time.monotonic()
        query = dns.message.make_query(name, rtype, use_edns=0, payload=1232)
        response = await dns.asyncquery.udp(query, address.host, timeout=10, port=address.port)
        states = history.allowed(sent, time.monotonic())
        rcode = dns.rcode.to_text(response.rcode())
        answer = frozenset(
            (s.name.to_text().lower(), dns.rdatatype.to_text(s.rdtype), str(r)) for s in response.answer for r in s
        )
        assert any((e.rcode, e.answer) == (rcode, answer) for e in (s.expected(name, rtype) for s in states)), (
            f"{name} {rtype}: {rcode} {sorted(answer)}; allowed: {[s.expected(name, rtype) for s in states][-5:]}"
        )
        asked += 1
        full += bool(answer)
    return asked, full


async def test_every_answer_was_true_within_its_ttl() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    history = History()
    async with api_server() as api, task_set() as tasks:
        server = Server(Config(listen=("127.0.0.1:0",), node="n1"))
        ready, ended = asyncio.Event(), asyncio.Event()
        tasks.start(server.run(api.client, ready.set))
        async with asyncio.timeout(20):
            await ready.wait()
        churn = Churn(api.client, history, dice)
        async with asyncio.TaskGroup() as group:
            askers = [group.create_task(questions(server, history, random.Random(seed + i), ended)) for i in range(3)]
            end = time.monotonic() + SECONDS
            try:
                while time.monotonic() < end:
                    await churn.step()
            finally:
                ended.set()
        asked, full = (sum(column) for column in zip(*(asker.result() for asker in askers), strict=True))
        print(f"{churn.writes} writes, {asked} questions, {full} with records")
        assert churn.writes > SECONDS
        assert asked > SECONDS
        assert full
        await settled(server, history)
        tasks.cancel_all()


async def settled(server: Server, history: History) -> None:
    """Once all is quiet, every name is answered by the last state."""
    last = history.states[-1]
    names = [f"s{i}.{NAMESPACE}.svc.cluster.local." for i in range(SERVICES)]
    address = server.addresses[0]
    deadline = time.monotonic() + 30.0
    for name in names:
        while True:
            response = await dns.asyncquery.udp(
                dns.message.make_query(name, "A", use_edns=0), address.host, timeout=10, port=address.port
            )
            got = {str(r) for s in response.answer if s.rdtype == dns.rdatatype.A for r in s}
            if got == {text for _, kind, text in last.expected(name, "A").answer if kind == "A"}:
                break
            assert time.monotonic() < deadline, name
            await asyncio.sleep(0.01)
