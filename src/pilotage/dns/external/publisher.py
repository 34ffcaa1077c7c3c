"""The shell: objects in, updates out, at any change and every minute, since others change zones too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pilotage.api.core_v1 import Service
from pilotage.api.networking_v1 import Ingress
from pilotage.client import Client, Informer
from pilotage.dns.chain.exchange import parse_address
from pilotage.dns.core.name import from_text
from pilotage.dns.external.core.annotations import Claim
from pilotage.dns.external.core.gateways import from_gateways
from pilotage.dns.external.core.plan import plan
from pilotage.dns.external.core.wanted import from_ingress, from_service, join
from pilotage.dns.external.gateways import GatewayKinds
from pilotage.dns.external.server import AuthoritativeServer, Key, ServerAway, ServerRefused
from pilotage.kit.backoff import Backoff
from pilotage.kit.errors import UsageError
from pilotage.kit.tasks import task_set
from pilotage.telemetry import get_logger

SOURCES = ("service", "ingress", "gateway")
SPACING_S = 0.5
"""Between two looks at the zone: the first change is published at once, those that follow closely go together."""
SHARE_MAX = 0.5
"""Of the server's time: after a look that took long (a large zone, a slow server) it is left alone for longer."""
SPACING_S_MAX = 30.0
_RETRY = Backoff(initial_s=0.5, max_s=30.0)
_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to publish where."""

    server: str
    """ADDRESS:PORT of the zone's primary."""
    zone: str
    owner: str
    """This cluster's name in ownership records: another cluster that shares the zone has another."""
    key: Key | None = None
    sources: tuple[str, ...] = SOURCES
    interval_s: float = 60.0
    """Between two looks at the zone without any change of an object."""

    def check(self) -> None:
        """Raises `UsageError`."""
        parse_address(self.server)
        if not self.owner or not self.owner.replace("-", "").replace(".", "").isalnum():
            raise UsageError(f"owner: {self.owner!r} must be letters, digits, dashes and dots")
        for source in self.sources:
            if source not in SOURCES:
                raise UsageError(f"source: {source!r} is not one of {', '.join(SOURCES)}")
        try:
            if not from_text(self.zone):
                raise ValueError("the root")
        except ValueError as error:
            raise UsageError(f"zone: {self.zone!r} is not a domain") from error


class Publisher:
    """One zone kept as the cluster wants it."""

    def __init__(self, config: Config, client: Client) -> None:
        config.check()
        self._config = config
        self._client = client
        self._zone = from_text(config.zone)
        self._server = AuthoritativeServer(parse_address(config.server), self._zone, config.key)
        self._services = Informer(client, Service)
        self._ingresses = Informer(client, Ingress)
        self._gateways = GatewayKinds(client, lambda: self._due.set())
        self._due = asyncio.Event()
        self._said: set[str] = set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Until cancelled; ready when the zone has been right once."""
        informers: list[Informer[Any]] = []
        informers += [self._services] if "service" in self._config.sources else []
        informers += [self._ingresses] if "ingress" in self._config.sources else []
        async with task_set() as tasks:
            for informer in informers:
                informer.add_handler(lambda _old, _new: self._due.set())
                tasks.start(informer.run())
            if "gateway" in self._config.sources:
                tasks.start(self._gateways.run())
            # What is not read yet must not look as if it were gone.
            for informer in informers:
                await informer.wait_synced()
            if "gateway" in self._config.sources:
                await self._gateways.wait_complete()
            await self._keep(on_ready)

    async def _keep(self, on_ready: Callable[[], None]) -> None:
        failures, ready = 0, False
        now = asyncio.get_running_loop().time
        while True:
            self._due.clear()
            started = now()
            try:
                await self.publish()
            except ServerRefused as error:
                failures += 1
                if failures in (1, 10) or failures % 100 == 0:
                    _log.warning("zone is not as it should be", zone=self._config.zone, error=str(error)[:300])
            else:
                if failures:
                    _log.info("zone is as it should be again", zone=self._config.zone)
                failures = 0
                if not ready:
                    on_ready()
                ready = True
            took = now() - started
            await asyncio.sleep(min(max(SPACING_S, took / SHARE_MAX), SPACING_S_MAX))
            await self._wait(_RETRY.delay_s(failures) if failures else self._config.interval_s)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            pass

    async def publish(self) -> int:
        """Bring the zone up to date; how many changes that took. Raises `ServerRefused` when not all are done; one name
        that the server does not want keeps no other from it."""
        wanted, problems = join(self._claims(), self._zone)
        content = await self._server.read()
        changes, conflicts = plan(wanted, content, self._config.owner)
        self._say(problems, "cannot be published")
        self._say(conflicts, "belongs to somebody else and is left alone")
        refused: list[ServerRefused] = []
        for change in changes:
            name = b".".join(change.name).decode("latin-1")
            try:
                if not await self._server.apply(change):
                    raise ServerRefused(f"{name} changed meanwhile")  # read it again
            except ServerAway:
                raise
            except ServerRefused as error:
                refused.append(error)
                continue
            _log.info("published" if change.add else "withdrawn", name=name, records=len(change.add))
        if refused:
            raise refused[0]
        return len(changes)

    def _say(self, texts: Iterable[str], what: str) -> None:
        for text in texts:
            if text not in self._said and len(self._said) < 10_000:
                self._said.add(text)
                _log.warning(what, name=text)

    def _claims(self) -> list[Claim]:
        found = [claim for service in self._services.list() for claim in from_service(service)]
        found += [claim for ingress in self._ingresses.list() for claim in from_ingress(ingress)]
        return [*found, *from_gateways(self._gateways.gateways(), self._gateways.routes())]


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Publish until cancelled."""
    await Publisher(config, client).run(on_ready)
