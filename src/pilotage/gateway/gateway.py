"""The gateway's shell: informers → translation → snapshot → Envoy's acknowledgement → statuses, events, watermark.

Stands apart from the translation, which is pure. Called by a composition root. A change is translated at once when
nothing was published just before, else after `SNAPSHOT_INTERVAL_S`, so that a burst costs a few snapshots rather than
one each. Everything is translated anew each time; only resources whose bytes differ travel to Envoy.

Importing this module must not pull in gRPC or Envoy's protobufs (another 30 MB and 150 ms), because processes that
never run a gateway import it too: `run` imports `xds` and `core.translate`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.api.core_v1 import Secret, Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.api.networking_v1 import Ingress, IngressClass
from pilotage.client import Client, EventRecorder, Informer, WatermarkPublisher
from pilotage.gateway.core.problem import Problem, in_order
from pilotage.gateway.envoy import EnvoyConfig, run_envoy
from pilotage.gateway.metrics import APPLY_SECONDS, PROBLEMS, REJECTED, SNAPSHOTS, TRANSLATION_SECONDS
from pilotage.gateway.status import StatusWriter
from pilotage.kit.clock import SYSTEM_CLOCK
from pilotage.kit.tasks import task_set
from pilotage.telemetry import get_logger

if TYPE_CHECKING:
    from pilotage.gateway.core.ingress import Inputs
    from pilotage.xds import AdsServer, NodeState, Snapshot

SNAPSHOT_INTERVAL_S = 0.02  # fifty snapshots a second at most; Envoy applies one in about a millisecond
HISTORY_MAX = 256  # snapshots whose acknowledgement is still awaited; older ones are covered by newer ones
CONSUMER = "gateway"

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One gateway with one Envoy."""

    run_dir: Path  # sockets and Envoy's bootstrap; created with mode 0700
    addresses: tuple[str, ...]  # what Ingress statuses say: IP addresses or host names; empty: they are not written
    listen_http: tuple[tuple[str, int], ...] = (("0.0.0.0", 80),)  # noqa: S104 - it is there to be reached; (): no HTTP
    listen_https: tuple[tuple[str, int], ...] = (("0.0.0.0", 443),)  # noqa: S104 - (): no HTTPS
    public_https_port: int = 443  # by which clients reach `listen_https`; redirects name it
    access_log: str | None = None  # a file that gets one JSON object a request; "-": standard output; None: none
    node: str = ""  # for the watermark's name; empty: this gateway serves the whole cluster
    concurrency: int = 2  # Envoy's worker threads
    envoy: Path | None = None  # Envoy's binary; None: find it


async def run(config: Config, client: Client, *, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until cancelled; `on_ready` once Envoy has acknowledged the first snapshot. Ends Envoy with itself."""
    from pilotage.xds import AdsServer

    config.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_dir.chmod(0o700)
    xds_path = config.run_dir / "xds.sock"
    gateway = _Gateway(config, client, on_ready)
    server = AdsServer(path=xds_path, on_change=gateway.wake)
    gateway.server = server
    envoy = EnvoyConfig(
        run_dir=config.run_dir,
        xds_path=xds_path,
        node_id=f"gateway-{config.node}" if config.node else "gateway",
        concurrency=config.concurrency,
        binary=config.envoy,
    )
    async with task_set() as tasks:
        # Informers, server and Envoy start side by side: Envoy needs longest and waits for its first snapshot anyway.
        listening = asyncio.Event()
        tasks.start(server.run(on_ready=listening.set), name="xds")
        for informer in gateway.informers:
            tasks.start(informer.run(), name=f"informer-{informer.kind.plural}")
        tasks.start(gateway.events.run(), name="events")
        tasks.start(gateway.watermark.run(), name="watermark")
        if gateway.statuses is not None:
            tasks.start(gateway.statuses.run(), name="status")
        await listening.wait()
        tasks.start(run_envoy(envoy), name="envoy")
        await gateway.run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """What becomes true once Envoy acknowledges `version`."""

    version: int
    at: float
    resource_version: int  # everything up to here is in the snapshot
    keys: frozenset[str]  # the Ingresses in it


class _Gateway:
    """The loop and what it holds; all of it runs in one event loop."""

    def __init__(self, config: Config, client: Client, on_ready: Callable[[], None]) -> None:
        from pilotage.gateway.core.translate import Options, Translator

        self.server: AdsServer
        self._translator = Translator(Options(access_log=config.access_log))
        self._config = config
        self._on_ready = on_ready
        self.ingresses = Informer(client, Ingress)
        self.classes = Informer(client, IngressClass)
        self.services = Informer(client, Service)
        self.slices = Informer(client, EndpointSlice)
        # Only what may be served: the other Secrets are none of the gateway's business.
        self.secrets = Informer(client, Secret, field_selector="type=kubernetes.io/tls")
        self.informers: tuple[
            Informer[Ingress], Informer[IngressClass], Informer[Service], Informer[EndpointSlice], Informer[Secret]
        ] = (self.ingresses, self.classes, self.services, self.slices, self.secrets)
        self.events = EventRecorder(client, "pilotage-gateway")
        self.watermark = WatermarkPublisher(client, CONSUMER, config.node)
        self.statuses = StatusWriter(client, self.ingresses, config.addresses) if config.addresses else None
        self._wake = asyncio.Event()
        self._changed = True
        self._snapshot: Snapshot | None = None
        self._keys: frozenset[str] = frozenset()
        self._awaited: deque[_Published] = deque(maxlen=HISTORY_MAX)
        self._problems: frozenset[Problem] = frozenset()
        self._rejected: frozenset[Problem] = frozenset()
        self._applied = -1
        for informer in self.informers:
            informer.add_handler(self._change)
            informer.add_progress(lambda _: self.wake())

    def wake(self) -> None:
        """Something may have to be done: an object changed, a watch moved on, Envoy answered."""
        self._wake.set()

    def _change(self, _old: object, _new: object) -> None:
        self._changed = True
        self._wake.set()

    async def run(self) -> None:
        for informer in self.informers:
            await informer.wait_synced()
        while True:
            self._wake.clear()
            if self._changed:
                self._changed = False
                self._translate()
                self._observe()
                await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            else:
                self._await_applied()
                self._observe()
                await self._wake.wait()

    # ── objects → snapshot ──────────────────────────────────────────────────────────────────────────────────────

    def _translate(self) -> None:
        from pilotage.gateway.core.ingress import Ports, translate_ingresses
        from pilotage.xds import Snapshot

        ports = Ports(
            http=self._config.listen_http, https=self._config.listen_https, redirect=self._config.public_https_port
        )
        with TRANSLATION_SECONDS.time():
            result = translate_ingresses(self._inputs(), ports)
            resources = self._translator.translate(result.ir)
            version = self._snapshot.version + 1 if self._snapshot else 1
            snapshot = Snapshot.of(version, resources)
            if self._snapshot is None or not snapshot.same_content(self._snapshot):
                self._snapshot = snapshot
                self.server.publish(snapshot)
                SNAPSHOTS.inc()
        self._keys = frozenset(ingress.metadata.key for ingress in result.ours)
        self._await_applied()
        self._report(frozenset(result.problems))

    def _inputs(self) -> "Inputs":
        from pilotage.gateway.core.ingress import Inputs

        return Inputs(
            ingresses=tuple(self.ingresses.list()),
            ingress_classes=tuple(self.classes.list()),
            services=tuple(self.services.list()),
            endpoint_slices=tuple(self.slices.list()),
            secrets=tuple(self.secrets.list()),
        )

    def _await_applied(self) -> None:
        """Remember what Envoy's acknowledgement of the present snapshot will prove."""
        if self._snapshot is None:
            return
        entry = _Published(
            version=self._snapshot.version,
            at=SYSTEM_CLOCK.monotonic(),
            resource_version=min(self.services.resource_version, self.slices.resource_version),
            keys=self._keys,
        )
        if self._awaited and self._awaited[-1].version == entry.version:
            entry = _Published(
                version=entry.version,
                at=self._awaited.pop().at,
                resource_version=entry.resource_version,
                keys=entry.keys,
            )
        self._awaited.append(entry)

    # ── acknowledgement → statuses, watermark, events ───────────────────────────────────────────────────────────

    def _observe(self) -> None:
        state = next((state for state in self.server.states() if state.connected), None)
        if state is None:
            return
        self._report_rejected(state)
        proven = None
        while self._awaited and self._awaited[0].version <= state.applied:
            proven = self._awaited.popleft()
        if proven is None:
            return
        if proven.version > self._applied:
            APPLY_SECONDS.observe(SYSTEM_CLOCK.monotonic() - proven.at)
            if self._applied < 0:
                self._on_ready()
            self._applied = proven.version
        self.watermark.advance(proven.resource_version)
        # A refused route table or listener means that the newest routes are not in force: say nothing new.
        if self.statuses is not None and not any(item.type.name in ("LISTENER", "ROUTE") for item in state.rejected):
            self.statuses.program(proven.keys)

    def _report_rejected(self, state: "NodeState") -> None:
        from pilotage.gateway.core.rejected import describe

        REJECTED.set(len(state.rejected))
        found = frozenset(describe(item) for item in state.rejected)
        for problem in in_order(found - self._rejected):
            _log.error("envoy refused a resource", reason=problem.reason, error=problem.message)
            self.events.warning(problem.about, problem.reason, problem.message)
        self._rejected = found

    def _report(self, found: frozenset[Problem]) -> None:
        PROBLEMS.set(len(found))
        for problem in in_order(found - self._problems):
            self.events.warning(problem.about, problem.reason, problem.message)
        self._problems = found
