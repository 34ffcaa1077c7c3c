"""What some steps need from the API beyond Services: clients' namespaces, DNSRecord objects, this node's zone.

Apart from `server` because none of it is watched until a configuration asks for it.
"""

from __future__ import annotations

import asyncio

from pilotage.api.core_v1 import Node, Pod
from pilotage.api.meta_v1 import ObservedCondition
from pilotage.api.status import ApiError
from pilotage.client import Client, ConnectionFailed, Informer
from pilotage.dns.api import DNSRecord
from pilotage.dns.chain.build import Plan
from pilotage.dns.chain.environment import Environment
from pilotage.dns.core.custom import Judgement
from pilotage.kit.clock import Clock
from pilotage.kit.tasks import TaskSet
from pilotage.telemetry import get_logger

ZONE_LABEL = "topology.kubernetes.io/zone"
SYNC_TIMEOUT_S = 5.0
"""A server that has no DNSRecords, or does not let us read them, must not hold up all other names."""
_log = get_logger()


class Watching:
    """Starts each watch at most once."""

    def __init__(self, client: Client, environment: Environment, clock: Clock, *, node: str) -> None:
        self._client = client
        self._environment = environment
        self._clock = clock
        self._node = node
        self._started: set[str] = set()
        self._unsaid: asyncio.Queue[str] = asyncio.Queue(maxsize=10_000)

    async def ensure(self, plan: Plan, tasks: TaskSet) -> None:
        """Everything `plan` needs is watched, and complete unless the API is slow."""
        wanted: list[Informer[Pod] | Informer[DNSRecord]] = []
        if plan.needs_pods and "pods" not in self._started:
            self._started.add("pods")
            selector = f"spec.nodeName={self._node}" if self._node else ""  # a node's DNS is asked by its own pods
            pods = Informer(self._client, Pod, field_selector=selector)
            pods.add_handler(self._environment.askers.set)
            wanted.append(pods)
        if plan.needs_records and "records" not in self._started:
            self._started.add("records")
            await self._find_zone()
            records = Informer(self._client, DNSRecord)
            records.add_handler(self._on_record)
            wanted.append(records)
            tasks.start(self._say(records), name="record statuses")
        for informer in wanted:
            tasks.start(informer.run(), name=f"informer {informer.kind.kind}")
        try:
            async with asyncio.timeout(SYNC_TIMEOUT_S):
                for informer in wanted:
                    await informer.wait_synced()
        except TimeoutError:
            _log.warning("not all watches are complete yet", waiting=[i.kind.kind for i in wanted if not i.synced])

    async def _find_zone(self) -> None:
        if not self._node or self._environment.topology_zone:
            return
        try:
            node = await self._client.get(Node, self._node)
        except (ApiError, ConnectionFailed) as error:
            _log.warning("cannot read this node's zone", error=str(error)[:300])
            return
        self._environment.topology_zone = node.metadata.labels.get(ZONE_LABEL, "")

    def _on_record(self, old: DNSRecord | None, new: DNSRecord | None) -> None:
        either = new or old
        assert either is not None
        self._environment.custom.set(either.metadata.key, new)
        table = self._environment.table
        table.forget_answers(recursion=table.recursion)  # records are changed by people, hence seldom
        names = {part.spec.name.lower().removesuffix(".") for part in (old, new) if part is not None}
        for held in self._environment.custom.objects():  # who waited for the name may have it now
            if held.spec.name.lower().removesuffix(".") in names and not self._unsaid.full():
                self._unsaid.put_nowait(held.metadata.key)

    async def _say(self, records: Informer[DNSRecord]) -> None:
        """Write Accepted conditions where they differ. Every node's server does; the first one's write is the last."""
        while True:
            key = await self._unsaid.get()
            held = records.get_key(key)
            if held is None:
                continue
            wanted = self._environment.custom.judge(held)
            if _is_said(held, wanted):
                continue
            condition = {
                "type": "Accepted",
                "status": "True" if wanted.accepted else "False",
                "reason": wanted.reason,
                "message": wanted.message,
                "lastTransitionTime": self._clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ"),
                "observedGeneration": held.metadata.generation,
            }
            try:
                await self._client.patch(
                    DNSRecord,
                    held.metadata.name,
                    {"status": {"conditions": [condition]}},
                    namespace=held.metadata.namespace,
                    subresource="status",
                )
            except (ApiError, ConnectionFailed) as error:
                _log.debug("cannot write a record's status", record=key, error=str(error)[:300])


def _is_said(held: DNSRecord, wanted: Judgement) -> bool:
    said: ObservedCondition | None = next((c for c in held.status.conditions if c.type == "Accepted"), None)
    return (
        said is not None
        and said.observed_generation == held.metadata.generation
        and (said.status == "True", said.reason, said.message) == (wanted.accepted, wanted.reason, wanted.message)
    )
