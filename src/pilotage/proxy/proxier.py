"""The shell of the proxy: watches in, transactions out.

Informers mark Services as changed; one loop takes what has been marked, plans those Services anew and applies the
difference. When idle a change is applied at once; while a transaction runs, changes gather and go together. After a
refusal the whole plan is compared with the kernel and set right, with backoff. The watermark advances once the kernel
has everything up to a resourceVersion. Leaves out every decision (core) and every rule (backends).
"""

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotage.api.core_v1 import Node, ObjectReference, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.meta_v1 import UID
from pilotage.client import Client, EventRecorder, Informer, WatermarkPublisher
from pilotage.kit.backoff import Backoff
from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.memory import give_back_memory
from pilotage.kit.tasks import task_set
from pilotage.network import forget_flows
from pilotage.proxy import metrics
from pilotage.proxy.auditor import Auditor
from pilotage.proxy.backends import Backend
from pilotage.proxy.backends.registry import BACKENDS, resolve
from pilotage.proxy.blocking import in_thread
from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.model import Problem, beyond, service_ports
from pilotage.proxy.core.plan import Delta, Plan, Planner
from pilotage.proxy.core.slim import slim_slice
from pilotage.proxy.core.topology import ZONE_LABEL, NodeView
from pilotage.proxy.errors import BackendError
from pilotage.proxy.flows import FlowKeeper, Forget
from pilotage.proxy.health import HealthChecks
from pilotage.telemetry import get_logger

_SERVICE_INDEX = "service"
_RETRY = Backoff(initial_s=0.05, max_s=5.0)
# Planning this many Services takes about 10 ms; then the loop lets others run.
_PLANNED_AT_ONCE = 100
_DRIFT_LOGGED_MAX = 20
_EVENT_TEXT_MAX = 1000  # the API takes messages of 1,024 bytes
_PROBLEMS_MAX = 10  # told about one Service: a slice may hold a thousand wrong addresses, and one says it all

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How to run on one node."""

    node: str
    cluster_cidr: str = ""  # where pods live, comma-separated for two families; empty: unknown
    ip_families: tuple[str, ...] = ("ip", "ip6")  # those the kernel lacks are left out
    backend: str = "nftables"  # one of `backends.registry.NAMES`
    node_port_addresses: tuple[str, ...] = ()  # CIDRs of own addresses that answer on node ports; empty: all
    audit_interval_s: float = 0.2  # between looks at whether somebody else changed the kernel's rules
    full_audit_interval_s: float = 300.0  # within which everything is compared, though nobody seems to have changed it


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySnapshot:
    """For debugging: what the proxy holds and how far it is."""

    node: str
    zone: str
    services: int
    waiting: int  # Services marked as changed and not applied yet
    watermark: int
    failures: int  # in a row; 0: the last transaction was accepted
    problems: tuple[Problem, ...]


class Proxier:
    """One node's proxy. `run` it; the rest is for looking."""

    def __init__(
        self,
        config: Config,
        client: Client,
        backend: Backend,
        *,
        forget: Forget = forget_flows,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`forget` works in the backend's network."""
        self.config = config
        self._backend = backend
        self._clock = clock
        self._services = Informer(client, Service)
        self._slices = Informer(client, EndpointSlice, transform=slim_slice)
        self._nodes = Informer(client, Node, field_selector=f"metadata.name={config.node}")
        self._events = EventRecorder(client, "kube-proxy", host=config.node)
        self._watermark = WatermarkPublisher(client, "proxy", config.node)
        self._health = HealthChecks()
        self._planner = Planner(NodeView(name=config.node), recording=False)
        self._flows = FlowKeeper(forget, self._planner, self._advance, clock=clock)
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._failures = 0
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._limits: Mapping[str, str] = {}  # the backend's, as Services were last told
        # One transaction at a time: the kernel seam is not for two threads, and order matters.
        self._kernel = asyncio.Lock()
        self._auditor = Auditor(
            backend,
            self._kernel,
            self._planner.elements_of,
            self._report_drift,
            interval_s=config.audit_interval_s,
            round_s=config.full_audit_interval_s,
            clock=clock,
        )

    def snapshot(self) -> ProxySnapshot:
        return ProxySnapshot(
            node=self.config.node,
            zone=self._planner.node.zone,
            services=len(self._planner),
            waiting=len(self._dirty),
            watermark=self._watermark.value,
            failures=self._failures,
            problems=tuple(problem for problems in self._problems.values() for problem in problems),
        )

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled. The rules stay in the kernel."""
        self._slices.add_index(_SERVICE_INDEX, _service_keys)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._nodes.add_handler(self._node_changed)
        self._services.add_progress(self._advanced)
        self._slices.add_progress(self._advanced)
        # Until the first synchronisation nearly everything that is made stays: looking for garbage is wasted.
        gc.disable()
        try:
            async with task_set() as tasks:
                tasks.start(self._services.run(), name="proxy services")
                tasks.start(self._slices.run(), name="proxy slices")
                tasks.start(self._nodes.run(), name="proxy node")
                tasks.start(self._events.run(), name="proxy events")
                tasks.start(self._watermark.run(), name="proxy watermark")
                tasks.start(self._flows.run(), name="proxy flows")
                await self._services.wait_synced()
                await self._slices.wait_synced()
                await self._nodes.wait_synced()
                await self._synchronise()
                # Hundreds of thousands of objects that stay: without this every full collection walks them, which
                # shows as pauses of 10 ms between a change and the kernel.
                gc.collect()
                gc.freeze()
                gc.enable()
                give_back_memory()
                on_ready()
                tasks.start(self._auditor.run(), name="proxy audit")
                await self._follow()
        finally:
            gc.enable()
            self._health.close()

    # ── what changed ────────────────────────────────────────────────────────────────────────────────────────────

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        found = new or old
        if found is not None:
            self._mark(found.metadata.key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for one in (old, new):
            if one is not None and one.service_name:
                self._mark(f"{one.metadata.namespace}/{one.service_name}")

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        view = NodeView(name=self.config.node, zone=new.metadata.labels.get(ZONE_LABEL, "") if new else "")
        if view != self._planner.node:
            self._planner.node = view
            for service in self._services.list():
                self._mark(service.metadata.key)

    def _advanced(self, _: int) -> None:
        self._wake.set()  # even if nothing changed: the watermark moves

    def _mark(self, service: str) -> None:
        self._dirty.add(service)
        self._wake.set()

    # ── planning ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _plan_marked(self) -> int:
        """Plan every marked Service; returns the resourceVersion that the result contains."""
        planned = 0
        while True:
            # Read before the last look at `_dirty`: what arrives later is not in the plan.
            reached = min(self._services.resource_version, self._slices.resource_version)
            if not self._dirty:
                return reached
            while self._dirty:
                self._dirty |= self._plan_one(self._dirty.pop())
                planned += 1
                if planned % _PLANNED_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _plan_one(self, key: str) -> frozenset[str]:
        service = self._services.get_key(key)
        problems: list[Problem] = []
        if service is None:
            again = self._planner.update(key, ())
        else:
            ports = service_ports(service, self._slices.by_index(_SERVICE_INDEX, key), problems)
            age = service.metadata.creation_timestamp
            again = self._planner.update(key, ports, age=age, problems=problems)
            problems += beyond(service, self._limits)
        self._report(key, service, tuple(dict.fromkeys(problems))[:_PROBLEMS_MAX])
        return again

    def _report(self, key: str, service: Service | None, problems: tuple[Problem, ...]) -> None:
        known = self._problems.get(key, ())
        if problems == known:
            return
        if problems:
            self._problems[key] = problems
        else:
            del self._problems[key]
        for problem in problems:
            if problem not in known and service is not None:
                _log.warning(
                    "Service cannot be carried out as written",
                    service=key,
                    reason=problem.reason,
                    message=problem.message,
                )
                self._events.warning(service, problem.reason, problem.message)

    # ── applying ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._apply_marked():
                await self._synchronise()

    async def _apply_marked(self) -> bool:
        """Plan what is marked and apply the difference; False if the kernel refused it."""
        async with self._kernel:
            reached = await self._plan_marked()
            delta = self._planner.take()
            if delta:
                started = self._clock.monotonic()
                try:
                    if delta.size <= self._backend.inline_elements_max:
                        self._backend.apply(delta)
                    else:
                        await in_thread(self._backend.apply, delta)
                except BackendError as error:
                    metrics.FAILURES.labels(kind="change").inc()
                    _log.error("change refused, comparing everything", error=str(error), elements=delta.size)
                    return False
                metrics.SYNC_SECONDS.labels(kind="change").observe(self._clock.monotonic() - started)
                metrics.ELEMENTS_CHANGED.inc(delta.size)
            await self._applied(reached, delta)
        return True

    async def _synchronise(self) -> None:
        """Make the kernel as planned, whatever is in it; tries until it is so."""
        while True:
            if await self._synchronise_once():
                return
            await asyncio.sleep(_RETRY.delay_s(self._failures))

    async def _synchronise_once(self) -> bool:
        async with self._kernel:
            reached = await self._plan_marked()
            gone, plan = self._planner.take().frontends_gone, self._planner.plan()
            started = self._clock.monotonic()
            try:
                changes = await in_thread(self._backend.sync, plan)
            except BackendError as error:
                self._failures += 1
                metrics.FAILURES.labels(kind="sync").inc()
                _log.error("synchronisation refused", error=str(error), failures=self._failures)
                return False
            self._failures = 0
            metrics.SYNC_SECONDS.labels(kind="whole").observe(self._clock.monotonic() - started)
            metrics.ELEMENTS_CHANGED.inc(changes)
            _log.info("synchronised", services=len(self._planner), changes=changes)
            changed = Delta(flows_changed=True, frontends_gone=gone, clients_changed=_ALL_FAMILIES)
            await self._applied(reached, changed, plan)
            return True

    async def _applied(self, reached: int, delta: Delta, plan: Plan | None = None) -> None:
        """The kernel has it: clear what remembers the old state, then say so. `plan`: if all was compared with it."""
        metrics.SERVICES.set(len(self._planner))
        try:
            for family in sorted(delta.clients_changed):
                stale = await in_thread(self._backend.forget_clients, family, dict(self._planner.sticky))
                metrics.FLOWS_FORGOTTEN.inc(stale)
        except BackendError as error:
            metrics.FAILURES.labels(kind="forget").inc()
            _log.warning("clients may be remembered with endpoints that are gone", error=str(error))
        if self._backend.limits != self._limits:
            self._limits = dict(self._backend.limits)
            for service in self._services.list():
                if beyond(service, self._limits):
                    self._mark(service.metadata.key)  # planned again, which tells it
        await self._health.apply(self._planner.health)
        self._flows.applied(reached, delta, plan)

    def _advance(self, reached: int) -> None:
        self._watermark.advance(reached)
        metrics.WATERMARK.set(reached)

    # ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _report_drift(self, drift: tuple[Drift, ...]) -> None:
        for one in drift:
            metrics.DRIFT.labels(kind=one.kind).inc(one.count)
        differences = sum(one.count for one in drift)
        shown = [one.text() for one in drift[:_DRIFT_LOGGED_MAX]]
        by = drift[0].by
        _log.warning("drift repaired", differences=differences, first=shown, by=by)
        node = ObjectReference(api_version="v1", kind="Node", name=self.config.node, uid=UID(self.config.node))
        named = f"{differences} differences, first: {shown[0]}" + (f"; changed by {by}" if by else "")
        self._events.warning(node, "ServiceRulesRepaired", named[:_EVENT_TEXT_MAX])


_ALL_FAMILIES = frozenset(("ip", "ip6"))


def _service_keys(one: EndpointSlice) -> Iterable[str]:
    return (f"{one.metadata.namespace}/{one.service_name}",) if one.service_name else ()


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Proxy for `config.node` in the calling process's network namespace until cancelled; the rules stay."""
    backend = make_backend(config)

    def take_over() -> None:
        try:
            cleanup(except_for=resolve(config.backend))  # only now, so that a change of backend leaves no gap
        except BackendError as error:
            _log.warning("rules of another backend may remain", error=str(error))
        on_ready()

    try:
        await Proxier(config, client, backend).run(take_over)
    finally:
        backend.close()


def make_backend(config: Config) -> Backend:
    """The backend that `config` names, in the calling thread's network namespace."""
    surroundings = Surroundings(
        cluster_cidrs=_cidrs(config.cluster_cidr), node_port_addresses=config.node_port_addresses
    )
    return BACKENDS[resolve(config.backend)](available_families(config.ip_families), surroundings)


def available_families(wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of `wanted` that this kernel speaks."""
    return tuple(family for family in wanted if family != "ip6" or Path("/proc/net/if_inet6").exists())


def cleanup(*, except_for: str = "") -> None:
    """Remove every rule that any backend, or any but one, ever made in the calling process's network namespace."""
    for name, make in BACKENDS.items():
        if name == except_for:
            continue
        backend = make(("ip", "ip6"), Surroundings())
        try:
            backend.cleanup()
        finally:
            backend.close()


def _cidrs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
