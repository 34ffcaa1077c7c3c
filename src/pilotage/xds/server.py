"""The gRPC shell: one listening socket, one `DeltaStream` a connected Envoy, bytes in and out.

Stands apart from the state machine so that gRPC stays replaceable and out of tests. Called by a gateway, which
publishes snapshots and reads `states()`; every change of a state calls `on_change`. The socket is a file of mode
0600, because what passes through it includes private keys; whoever may open it is the same user.

grpc is imported inside `run`: its import costs some 20 MB and a process that is forked afterwards must not have it.
Leaves out TLS listeners for proxyless gRPC clients and different snapshots for different nodes.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.kit.tasks import task_set
from pilotage.xds.core.resource import Snapshot
from pilotage.xds.core.stream import Applied, DeltaStream, Rejected, StreamError

METHOD_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD_NAME = "DeltaAggregatedResources"

REQUEST_BYTES_MAX = 4 * 1024 * 1024  # the first request after a reconnect lists every name and version it holds
NODES_MAX = 64  # Envoys remembered by one server; a gateway runs one or a few
# A peer that vanished without closing is noticed after at most these two together.
KEEPALIVE_TIME_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What one Envoy has, as it told us; `node_id` is its own."""

    node_id: str
    connected: bool
    applied: int  # version of the last snapshot it has whole, but for `rejected`; -1 before the first
    rejected: tuple[Rejected, ...]  # what it refuses of the present snapshot, with its own words


class AdsServer:
    """Serves the snapshot last published to every Envoy that connects to the socket at `path`."""

    def __init__(
        self, *, path: Path, on_change: Callable[[], None] = lambda: None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._path = path
        self._on_change = on_change
        self._clock = clock
        self._snapshot: Snapshot | None = None  # None until the first publish: an Envoy keeps what it has meanwhile
        self._sessions: set[_Session] = set()
        self._states: dict[str, NodeState] = {}
        self._speakers: dict[str, _Session] = {}  # the newest session of each node: an older one may end after it began

    def publish(self, snapshot: Snapshot) -> None:
        """Bring every Envoy, now and later, to `snapshot`."""
        self._snapshot = snapshot
        for session in self._sessions:
            session.aim(snapshot)

    def states(self) -> tuple[NodeState, ...]:
        """Every Envoy seen, by node id; one that left stays, marked as not connected."""
        return tuple(self._states[node_id] for node_id in sorted(self._states))

    async def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until cancelled. Replaces a stale socket file of an earlier run and removes its own."""
        import grpc.aio
        from envoy.service.discovery.v3 import discovery_pb2

        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
                ("grpc.max_send_message_length", -1),  # bounded by RESPONSE_RESOURCES_MAX
                ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            )
        )
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD_SERVICE, {METHOD_NAME: handler}),))
        self._path.unlink(missing_ok=True)
        # The mode must be right from the first moment: chmod after bind would leave a gap.
        previous = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{self._path}")
        finally:
            os.umask(previous)
        await server.start()
        try:
            on_ready()
            await server.wait_for_termination()
        finally:
            try:
                await server.stop(grace=None)
            finally:
                self._path.unlink(missing_ok=True)

    async def _serve(self, _requests: Any, context: Any) -> None:
        """One stream, from its first request to its end."""
        session = _Session(self, context)
        if self._snapshot is not None:
            session.aim(self._snapshot)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            session.leave()

    def _report(self, session: "_Session", state: NodeState) -> None:
        speaker = self._speakers.get(state.node_id)
        if not state.connected and speaker is not session:
            return
        self._speakers[state.node_id] = session
        if self._states.get(state.node_id) == state:
            return
        if state.node_id not in self._states and len(self._states) >= NODES_MAX:
            gone = next((node_id for node_id, old in self._states.items() if not old.connected), None)
            if gone is None:
                raise StreamError(f"more than {NODES_MAX} nodes are connected")
            del self._states[gone], self._speakers[gone]
        self._states[state.node_id] = state
        self._on_change()


class _Session:
    """One connected Envoy: its stream and the two directions of its connection."""

    def __init__(self, server: AdsServer, context: Any) -> None:
        self._server = server
        self._context = context
        self._stream = DeltaStream()
        self._wake = asyncio.Event()
        self._applied = -1

    def aim(self, snapshot: Snapshot) -> None:
        self._stream.set_snapshot(snapshot, self._server._clock.monotonic())
        self._wake.set()

    async def run(self) -> None:
        async with task_set() as tasks:
            tasks.start(self._write(), name="xds-write")
            await self._read()

    async def _read(self) -> None:
        from grpc.aio import EOF

        while (request := await self._context.read()) is not EOF:
            self._stream.receive(request, self._server._clock.monotonic())
            self._wake.set()

    async def _write(self) -> None:
        clock = self._server._clock
        while True:
            self._wake.clear()
            for response in self._stream.data_to_send(clock.monotonic()):
                await self._context.write(response)
            self._collect(connected=True)
            timer = self._stream.next_timer()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if timer is None else max(0, timer - clock.monotonic()))
            self._stream.handle_timer(clock.monotonic())

    def leave(self) -> None:
        self._collect(connected=False)

    def _collect(self, *, connected: bool) -> None:
        while (event := self._stream.next_event()) is not None:
            if isinstance(event, Applied):
                self._applied = event.version
        if self._stream.node_id:
            self._server._report(
                self,
                NodeState(
                    node_id=self._stream.node_id,
                    connected=connected,
                    applied=self._applied,
                    rejected=tuple(self._stream.rejections()),
                ),
            )
