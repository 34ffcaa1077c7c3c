"""The DNS server's shell: watches in, sockets out.

Reads Services, EndpointSlices and Namespaces into the table, opens the listeners, puts itself behind the DNS Service
and states its watermark. Sockets open first: a client that comes before the first complete view hears SERVFAIL and
tries again, where a closed port would look like a broken network.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import msgspec

from pilotage.api.core_v1 import Namespace, Pod, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.client import Client, Informer, WatermarkPublisher
from pilotage.dns.accepting import Acceptor
from pilotage.dns.chain import Chain
from pilotage.dns.chain.build import Plan
from pilotage.dns.chain.environment import Environment
from pilotage.dns.chain.exchange import Address, parse_address
from pilotage.dns.chain.service import ChainService
from pilotage.dns.config import Config
from pilotage.dns.core.kept import kept_service, kept_slice
from pilotage.dns.core.leases import Leases
from pilotage.dns.core.name import from_text, pack_address, reverse_zones
from pilotage.dns.core.records import ZoneSettings
from pilotage.dns.core.table import Table
from pilotage.dns.core.ttl import Ages
from pilotage.dns.familiar import expose
from pilotage.dns.handover import HandoverListener, Told, leave, take_over
from pilotage.dns.imports import Imports
from pilotage.dns.lastgood import LastGood
from pilotage.dns.metrics import ADDRESSES, CHANGES, COMPILED, SERVICES
from pilotage.dns.publish import SlicePublisher, own_slices
from pilotage.dns.resolver import Resolver
from pilotage.dns.secure import SecureListeners
from pilotage.dns.sockets import Sockets
from pilotage.dns.tcp import MESSAGE_BYTES_MAX, StreamListener
from pilotage.dns.transfer import Transfers
from pilotage.dns.udp import DatagramListener
from pilotage.dns.watching import Watching
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.errors import UsageError
from pilotage.kit.tasks import TaskSet, task_set
from pilotage.telemetry import get_logger
from pilotage.telemetry.health import serve_health

CONSUMER = "dns"
DRAIN_S = 5.0
"""For questions and connections that the next process cannot take over."""
DRAIN_CHECK_S = 0.02
_log = get_logger()


def settings_of(config: Config, addresses: tuple[Address, ...]) -> ZoneSettings:
    """The pure part of the configuration."""
    namespace, _, name = config.dns_service.partition("/")
    packed = (pack_address(address.host) for address in addresses)
    return ZoneSettings(
        zone=from_text(config.zone),
        ttl=config.ttl_s,
        pods=config.pods,
        dns_service=(namespace, name),
        nameserver_addresses=tuple(address for address in packed if address is not None and any(address)),
        reverse_zones=tuple(zone for cidr in config.reverse_cidrs for zone in reverse_zones(cidr)),
    )


class Server:
    """One DNS process. `addresses` are known once it is entered."""

    def __init__(self, config: Config, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Opens the sockets. Raises `UsageError`, or `OSError` when a port is taken."""
        config.check()
        self._config = config
        self._clock = clock
        self._taken = take_over(config.handover) if config.handover else None
        self._sockets = Sockets(self._taken.sockets if self._taken else {}, reuse_port=config.reuse_port)
        try:
            self._bound = [self._sockets.open_pair(parse_address(text)) for text in config.listen]
            self.addresses = tuple(address for address, _, _ in self._bound)
            """What is listened on, with the ports really taken."""
            self.secure = SecureListeners(config, self._sockets)
            """Those that speak TLS."""
            self._health = self._sockets.open("health", parse_address(config.health)) if config.health else None
            self.table = Table(settings_of(config, self.addresses), recursion=False)
            self.environment = Environment(table=self.table, clock=clock)
            self.chains = ChainService(config, self.environment)
        except (OSError, UsageError):
            self._close()
            raise
        self.table.leases = Leases(clock.monotonic) if config.health else None
        self._bound_ttl(self.chains.plan)
        self.resolver = Resolver(self.table, self.chains.chain)
        self._datagrams: list[DatagramListener] = []
        self._imports: Imports | None = None  # without an API, or by choice: no cluster set
        self._acceptors: list[Acceptor] = []

    def _bound_ttl(self, plan: Plan) -> None:
        """TTLs by the file's bounds, or the one TTL of the start."""
        settings = settings_of(self._config, self.addresses)
        if plan.ttl is None:
            if self.table.ages is not None:
                self.table.set_ttl(settings, None)
        elif self.table.ages is None or self.table.ages.bounds != plan.ttl:
            settings = replace(settings, ttl=plan.ttl.most, negative_ttl=plan.ttl.negative)
            self.table.set_ttl(settings, Ages(plan.ttl, self._clock.monotonic))

    async def _grow_ttls(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.table.grow_ttls(self._clock.monotonic())

    def _close(self) -> None:
        self._sockets.close()
        if self._taken is not None:
            self._taken.connection.close()

    async def run(self, client: Client | None, on_ready: Callable[[], None]) -> None:
        """Serve until cancelled. Without a client the cluster is empty and only upstreams are asked."""
        try:
            async with AsyncExitStack() as stack:
                tasks = await stack.enter_async_context(task_set())
                pages = await stack.enter_async_context(AsyncExitStack())
                if self._taken is None:
                    await self._listen(stack, tasks, pages)
                watching = None
                if client is None:
                    self.table.synced = True
                else:
                    watching = Watching(client, self.environment, self._clock, node=self._config.node)
                    await self._watch(client, tasks)
                    await watching.ensure(self.chains.plan, tasks)

                async def exchange(plan: Plan, chain: Chain) -> None:
                    if watching is not None:
                        await watching.ensure(plan, tasks)
                    self._bound_ttl(plan)
                    self.resolver.exchange(chain)
                    for listener in self._datagrams:
                        listener.start()

                tasks.start(self.chains.run(exchange), name="chain")
                tasks.start(self._grow_ttls(), name="ttl")
                if self._taken is not None:
                    await self._listen(stack, tasks, pages)
                    told = await self._taken.confirm()
                    if self.table.leases is not None:
                        self.table.leases.adopt(told)
                on_ready()
                _log.info("dns ready", addresses=[str(address) for address in self.addresses])
                await self._until_relieved()
                await pages.aclose()
                await self._finish()
        finally:
            self.resolver.close()
            self._close()

    async def _until_relieved(self) -> None:
        """For ever; with a handover, until another process answers by our sockets and we read them no more."""
        if not self._config.handover:
            await asyncio.get_running_loop().create_future()
        waiting = HandoverListener(self._config.handover, self._sockets.held)
        try:
            relief = await waiting.wait()
        finally:
            waiting.close()
        for listener in self._datagrams:
            listener.pause()
        for acceptor in self._acceptors:
            await acceptor.stop()
        await leave(relief, self._leases(DRAIN_S))
        _log.info("relieved, finishing what was begun")

    async def _finish(self) -> None:
        """Until every question that was read is answered and every connection has ended."""
        deadline = self._clock.monotonic() + DRAIN_S
        while self._clock.monotonic() < deadline:
            if not any(each.pending for each in self._datagrams) and not any(each.busy for each in self._acceptors):
                return
            await asyncio.sleep(DRAIN_CHECK_S)

    def _leases(self, answering_s: float = 0.0) -> bytes:
        """Address → seconds, for whoever wants to give an address to another pod."""
        remaining = self.table.leases.remaining(answering_s) if self.table.leases is not None else {}
        named = {str(ipaddress.ip_address(packed)): round(seconds, 3) for packed, seconds in remaining.items()}
        return msgspec.json.encode(Told(seconds=named))

    def _unready(self) -> str:
        """For /readyz, and the moment when the gauges are looked at."""
        snapshot = self.table.snapshot()
        SERVICES.set(snapshot.services)
        ADDRESSES.set(snapshot.addresses)
        COMPILED.set(snapshot.compiled)
        return "" if snapshot.synced else "waiting for the first complete view of the cluster"

    async def _listen(self, stack: AsyncExitStack, tasks: TaskSet, pages: AsyncExitStack) -> None:
        transfers = Transfers(self.table, self._config.transfer_to) if self._config.transfer_to else None
        acceptor = Acceptor(StreamListener(self.resolver, transfers=transfers), tasks)
        stack.callback(acceptor.close)
        self._acceptors = [acceptor, *await self.secure.start(stack, tasks, self.resolver, transfers)]
        for _, datagrams, streams in self._bound:
            listener = DatagramListener(datagrams, self.resolver, tasks)
            listener.start()
            self._datagrams.append(listener)
            stack.callback(listener.close)
            await acceptor.start(streams, limit=MESSAGE_BYTES_MAX)
        if self._health is not None:
            expose()
            await pages.enter_async_context(serve_health(self._health, self._unready, {"/leases": self._leases}))

    async def _watch(self, client: Client, tasks: TaskSet) -> None:
        services = Informer(client, Service, transform=kept_service)
        slices = Informer(client, EndpointSlice, transform=kept_slice)
        namespaces = Informer(client, Namespace)
        informers: list[Informer[Service] | Informer[EndpointSlice] | Informer[Namespace] | Informer[Pod]]
        informers = [services, slices, namespaces]
        if self._config.cluster_set_zone:
            self._imports = Imports(client, self.table, from_text(self._config.cluster_set_zone))
        services.add_handler(self._on_service)
        slices.add_handler(self._on_slice)
        namespaces.add_handler(self._on_namespace)
        if self._config.pods == "verified":
            pods = Informer(client, Pod)
            pods.add_handler(self._on_pod)
            informers.append(pods)
        watermark = WatermarkPublisher(client, _consumer(self._config), self._config.node)

        def advance(_: int) -> None:
            if services.synced and slices.synced and self.table.synced:
                watermark.advance(min(services.resource_version, slices.resource_version))

        services.add_progress(advance)
        slices.add_progress(advance)
        for informer in informers:
            tasks.start(informer.run(), name=f"informer {informer.kind.kind}")
        last_good = view = None
        if self._config.snapshot_file:
            handlers = (self._on_service, self._on_slice, self._on_namespace)
            last_good = LastGood(self._config.snapshot_file, self._clock, services, slices, namespaces, handlers)
            view = await last_good.restore()
        if view is None or last_good is None:
            for informer in informers:
                await informer.wait_synced()
        else:
            tasks.start(last_good.settle(view), name="settle")
        if last_good is not None:
            tasks.start(last_good.run(), name="snapshot")
        # Everything held now is there to stay. A full collection over a million objects takes a fifth of a second, in
        # which nobody is answered: better once, before the first answer, than whenever the collector thinks so.
        gc.collect()
        gc.freeze()
        self.table.synced = True
        advance(0)
        tasks.start(watermark.run(), name="watermark")
        if self._imports is not None:
            tasks.start(self._imports.run(tasks), name="imports")
        if self._config.publish_service:
            publisher = SlicePublisher(client, self._own_slices())
            slices.add_handler(publisher.observe)
            tasks.start(publisher.run(), name="publish")

    def _own_slices(self) -> tuple[EndpointSlice, ...]:
        port = self.addresses[0].port
        advertised = [Address(parse_address(text).host, port) for text in self._config.advertise]
        return own_slices(self._config.publish_service, self._config.node, advertised or self.addresses)

    # Handlers apply at once instead of queueing keys: one change costs microseconds, and an answer is then never older
    # than the event that contradicts it.

    def _on_service(self, old: Service | None, new: Service | None) -> None:
        self._changed("service")
        self.table.set_service(old, new)

    def _on_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self._changed("slice")
        self.table.set_slice(old, new)
        if self._imports is not None:
            self._imports.on_slice(old, new)

    def _on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        self._changed("namespace")
        either = new or old
        assert either is not None
        self.table.set_namespace(either.metadata.name, exists=new is not None)
        if self._imports is not None:
            self._imports.on_namespace(either.metadata.name, exists=new is not None)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        for pod, exists in ((old, False), (new, True)):
            if pod is None:
                continue
            for address in pod.status.pod_ips or ():
                self.table.set_pod(pod.metadata.namespace, pod.metadata.name, address.ip, exists=exists)

    def _changed(self, kind: str) -> None:
        CHANGES.labels(kind).inc()
        self.resolver.cluster_changed()
        self.table.advance_serial(int(self._clock.wall().timestamp()))


def _consumer(config: Config) -> str:
    return f"{CONSUMER}-{config.worker}" if config.worker else CONSUMER


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until cancelled. `on_ready` is called once the first complete view of the cluster is served."""
    await Server(config).run(client, on_ready)
