"""One incremental ADS stream as a state machine: requests in, responses and events out, no wire and no clock.

Stands apart so that order, acknowledgement and removal can be tested without gRPC. Fed by `server` (one instance a
connected Envoy), which sends whatever `data_to_send` returns. Leaves out transport, node lists and the protocol's
state-of-the-world variant.

How a snapshot travels: a type is sent once the types it `REQUIRES` are *settled* (all acknowledged, and everything an
Envoy must ask for itself was asked for); removals go last, users before what they use, once every addition is settled.
A type that makes no progress for `gate_timeout_s` stops holding back the others. Endpoints do not wait for the
acknowledgement of their clusters: Envoy withholds it until a new cluster is warm, that is until it has its endpoints.
For the same reason the endpoints of a cluster that is to go are kept until it is gone.

A refused (NACK) response is halved and sent again until the refused resources stand alone; their neighbours are
applied, and they are not sent again before their content changes. While a listener or route is refused, the old one
is in service, so nothing is removed.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from pilotage.kit import PilotageError
from pilotage.xds.core.resource import Resource, ResourceType, Snapshot

WILDCARD = "*"
MISSING = ""  # the version of a resource that the client knows not to exist

RESPONSE_RESOURCES_MAX = 500  # keeps one response in the low megabytes even when every resource is a full cluster
SUBSCRIPTIONS_MAX = 100_000  # names a client may ask for by type; a real Envoy asks for one a cluster
MESSAGE_CHARS_MAX = 500  # of an error text that came from outside
REQUIRES = {  # what leads to an endpoint is sent after it
    ResourceType.CLUSTER: frozenset[ResourceType](),
    ResourceType.ENDPOINT: frozenset[ResourceType](),
    ResourceType.LISTENER: frozenset({ResourceType.CLUSTER, ResourceType.ENDPOINT}),
    ResourceType.SECRET: frozenset[ResourceType](),
    ResourceType.ROUTE: frozenset({ResourceType.CLUSTER, ResourceType.ENDPOINT}),
}
REMOVAL_ORDER = (  # an Envoy drops the endpoints of a removed cluster by itself
    ResourceType.LISTENER,
    ResourceType.ROUTE,
    ResourceType.SECRET,
    ResourceType.CLUSTER,
    ResourceType.ENDPOINT,
)
GATE_TIMEOUT_S = 5.0  # an Envoy warms a cluster in milliseconds; one that does not must not stop the rest


class StreamError(PilotageError):
    """The client broke the protocol; the stream must be closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Event: the client refused exactly this resource and keeps what it had before."""

    type: ResourceType
    name: str
    version: str  # MISSING: it refused the removal
    message: str  # the client's own words, cut to `MESSAGE_CHARS_MAX`


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Event: the client has all of snapshot `version`, except what it `rejected`; emitted once a snapshot."""

    version: int
    rejected: tuple[Rejected, ...]


Event: TypeAlias = Rejected | Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A response that was sent and neither acknowledged nor refused."""

    nonce: str
    sent: dict[str, str]  # name → version, MISSING for a removal


@dataclass(slots=True)
class _TypeState:
    """What we know of one type at the client."""

    requested: bool = False
    answered: bool = False
    wildcard: bool = False
    names: set[str] = field(default_factory=set)  # asked for by name
    held: dict[str, str] = field(default_factory=dict)  # name → version the client acknowledged
    rejected: dict[str, Rejected] = field(default_factory=dict)  # the last refusal by name
    pending: _Pending | None = None
    suspects: deque[tuple[str, ...]] = field(default_factory=deque)  # parts of a refused response, to be sent apart

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def is_refused(self, name: str, version: str) -> bool:
        refusal = self.rejected.get(name)
        return refusal is not None and refusal.version == version


class DeltaStream:
    """The server's end of one stream. Every method returns at once; the caller serialises calls."""

    def __init__(self, *, gate_timeout_s: float = GATE_TIMEOUT_S) -> None:
        self.node_id = ""  # empty until the first request
        self._gate_timeout_s = gate_timeout_s
        self._snapshot: Snapshot | None = None
        self._retained: dict[str, Resource] = {}  # endpoints of clusters that are to go but are still at the client
        self._types = {type_: _TypeState() for type_ in ResourceType}
        self._events: deque[Event] = deque()
        self._nonces = 0
        self._applied = -1
        self._gate_closes_at: float | None = None  # None while nothing is being waited for
        self._gate_forced = False

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Aim at `snapshot` from here on; whatever is on its way is finished first."""
        self._retain(snapshot)
        self._snapshot = snapshot
        self._gate_forced = False
        self._progress(now)

    def receive(self, request: discovery_pb2.DeltaDiscoveryRequest, now: float) -> None:
        """Take one request; raises `StreamError`. A type we do not serve is ignored: its client waits, as it should."""
        if request.node.id and not self.node_id:
            self.node_id = request.node.id
        try:
            type_ = ResourceType(request.type_url)
        except ValueError:
            return
        state = self._types[type_]
        if request.response_nonce:
            self._acknowledge(type_, state, request)
        self._subscribe(state, request)
        self._progress(now)

    def handle_timer(self, now: float) -> None:
        """To be called at `next_timer()`: stop waiting for a client that does not go on."""
        if self._gate_closes_at is not None and now >= self._gate_closes_at:
            self._gate_closes_at = None
            self._gate_forced = True

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_timer(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        return self._gate_closes_at

    def next_event(self) -> Event | None:
        """The oldest event not yet fetched."""
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Responses to be sent now, in this order; at most one of each type is ever unacknowledged."""
        snapshot = self._snapshot
        if snapshot is None:
            return []
        responses = []
        unsettled: set[ResourceType] = set()
        for type_ in ResourceType:
            state = self._types[type_]
            if state.pending is None and (self._gate_forced or not REQUIRES[type_] & unsettled):
                changes = self._next_batch(snapshot, type_)
                # Whoever asks for everything waits to hear that everything is nothing.
                if changes or (state.requested and state.wildcard and not state.answered):
                    responses.append(self._respond(snapshot, type_, changes))
            if not self._is_settled(snapshot, type_):
                unsettled.add(type_)
        if unsettled and not self._gate_forced:
            self._wait(now)
            return responses
        responses.extend(self._remove(snapshot))
        if any(state.pending for state in self._types.values()):
            if not self._gate_forced:
                self._wait(now)
            return responses
        self._gate_closes_at = None
        if not unsettled and self._applied != snapshot.version and self._types[ResourceType.CLUSTER].requested:
            self._applied = snapshot.version
            self._events.append(Applied(version=snapshot.version, rejected=tuple(self.rejections())))
        return responses

    def rejections(self) -> Iterator[Rejected]:
        """What the client refuses of the present snapshot, in sending order, names sorted."""
        for type_, state in self._types.items():
            for name in sorted(state.rejected):
                if state.rejected[name].version == self._desired_version(type_, name):
                    yield state.rejected[name]

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    def _acknowledge(
        self, type_: ResourceType, state: _TypeState, request: discovery_pb2.DeltaDiscoveryRequest
    ) -> None:
        pending = state.pending
        if pending is None or pending.nonce != request.response_nonce:
            return  # an answer to something superseded; its subscriptions still count
        state.pending = None
        if request.HasField("error_detail"):
            self._refuse(type_, state, pending, request.error_detail.message)
            return
        for name, version in pending.sent.items():
            state.rejected.pop(name, None)
            if version == MISSING and name not in state.names:
                state.held.pop(name, None)
            else:
                state.held[name] = version
            if version == MISSING and type_ is ResourceType.CLUSTER:
                self._retained.pop(name, None)

    def _refuse(self, type_: ResourceType, state: _TypeState, pending: _Pending, message: str) -> None:
        names = tuple(pending.sent)
        if len(names) > 1:
            middle = len(names) // 2
            state.suspects.extend((names[:middle], names[middle:]))
            return
        for name in names:
            refusal = Rejected(type=type_, name=name, version=pending.sent[name], message=message[:MESSAGE_CHARS_MAX])
            state.rejected[name] = refusal
            self._events.append(refusal)

    def _subscribe(self, state: _TypeState, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        first = not state.requested
        state.requested = True
        if first:
            state.held.update(request.initial_resource_versions)
            # "legacy wildcard": a first request that names nothing asks for everything
            state.wildcard = not request.resource_names_subscribe
        for name in request.resource_names_unsubscribe:
            state.wildcard = state.wildcard and name != WILDCARD
            state.names.discard(name)
            if not state.wildcard:
                state.held.pop(name, None)
        for name in request.resource_names_subscribe:
            if name == WILDCARD:
                state.wildcard = True
                continue
            state.names.add(name)
            if not first:  # asking again for a name means: send it again
                state.held.pop(name, None)
                state.rejected.pop(name, None)
        if len(state.names) > SUBSCRIPTIONS_MAX:
            raise StreamError(f"client {self.node_id} asks for more than {SUBSCRIPTIONS_MAX} resources of one type")

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────

    def _desired_version(self, type_: ResourceType, name: str) -> str:
        resource = self._desired(self._snapshot, type_).get(name) if self._snapshot else None
        return resource.version if resource else MISSING

    def _desired(self, snapshot: Snapshot, type_: ResourceType) -> Mapping[str, Resource]:
        """What the client should have of `type_` before removals begin."""
        resources = snapshot.resources[type_]
        return {**self._retained, **resources} if type_ is ResourceType.ENDPOINT and self._retained else resources

    def _retain(self, snapshot: Snapshot) -> None:
        """Keep the endpoints of clusters that `snapshot` drops: until they go, routes use them or they are warming."""
        if self._snapshot is None:
            return
        clusters = self._types[ResourceType.CLUSTER]
        present = clusters.held.keys() | (clusters.pending.sent.keys() if clusters.pending else set())
        known = self._desired(self._snapshot, ResourceType.ENDPOINT)
        gone = known.keys() - snapshot.resources[ResourceType.CLUSTER].keys()
        self._retained = {name: known[name] for name in gone if name in present}

    def _missing(self, snapshot: Snapshot, type_: ResourceType) -> dict[str, str]:
        """name → version the client should have and has not: new, changed, or asked for and not existing."""
        state = self._types[type_]
        if not state.requested:
            return {}
        desired = self._desired(snapshot, type_)
        missing = {
            name: resource.version
            for name, resource in desired.items()
            if state.wants(name)
            and state.held.get(name) != resource.version
            and not state.is_refused(name, resource.version)
        }
        for name in sorted(state.names):
            if name not in desired and name not in state.held and not state.is_refused(name, MISSING):
                missing[name] = MISSING  # it waits for an answer: the answer is that there is none
        return missing

    def _next_batch(self, snapshot: Snapshot, type_: ResourceType) -> dict[str, str]:
        """One response's worth of `_missing`: the next part of a refused response if there is one."""
        missing = self._missing(snapshot, type_)
        suspects = self._types[type_].suspects
        while suspects:
            batch = {name: missing[name] for name in suspects.popleft() if name in missing}
            if batch:
                return batch
        return dict(list(missing.items())[:RESPONSE_RESOURCES_MAX])

    def _is_settled(self, snapshot: Snapshot, type_: ResourceType) -> bool:
        """Nothing of `type_` is on its way, left to send, or still to be asked for by the client."""
        state = self._types[type_]
        if state.pending is not None or self._missing(snapshot, type_):
            return False
        parent = type_.parent
        if parent is None or not self._types[parent].wildcard:
            return True  # a client that picks what it wants will ask, or not
        return all(
            state.held.get(name) == resource.version
            or state.is_refused(name, resource.version)
            or self._is_orphan(parent, name)
            for name, resource in snapshot.resources[type_].items()
        )

    def _is_orphan(self, parent: ResourceType, name: str) -> bool:
        """Whether the client will never ask for `name`, because it refused what would make it ask."""
        refused = self._types[parent].rejected
        return bool(refused) if parent is ResourceType.LISTENER else name in refused

    def _remove(self, snapshot: Snapshot) -> Iterator[discovery_pb2.DeltaDiscoveryResponse]:
        """Removals of one type, the first of `REMOVAL_ORDER` that has any; the rest follow its acknowledgement."""
        if any(refusal.type in (ResourceType.LISTENER, ResourceType.ROUTE) for refusal in self.rejections()):
            return
        for type_ in REMOVAL_ORDER:
            state = self._types[type_]
            if state.pending is not None:
                return
            desired = self._desired(snapshot, type_)
            gone = [
                name
                for name, version in state.held.items()
                if version != MISSING and name not in desired and not state.is_refused(name, MISSING)
            ]
            if gone:
                yield self._respond(snapshot, type_, dict.fromkeys(gone[:RESPONSE_RESOURCES_MAX], MISSING))
                return

    def _respond(
        self, snapshot: Snapshot, type_: ResourceType, changes: dict[str, str]
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        self._nonces += 1
        nonce = str(self._nonces)
        self._types[type_].pending = _Pending(nonce=nonce, sent=changes)
        self._types[type_].answered = True
        if type_ is ResourceType.CLUSTER:
            # A changed cluster warms anew and waits for its endpoints, yet a client that already has a subscription
            # of that name need not repeat it: send them unasked. Sending twice is cheap, a cluster stuck is not.
            # Those still on their way were sent before the cluster: their acknowledgement says nothing.
            endpoints = self._types[ResourceType.ENDPOINT]
            for name in (name for name, version in changes.items() if version != MISSING):
                endpoints.held.pop(name, None)
                if endpoints.pending is not None:
                    endpoints.pending.sent.pop(name, None)
        desired = self._desired(snapshot, type_)
        return discovery_pb2.DeltaDiscoveryResponse(
            system_version_info=str(snapshot.version),
            type_url=type_.value,
            nonce=nonce,
            resources=[_wrap(desired[name]) for name, version in changes.items() if version != MISSING],
            removed_resources=[name for name, version in changes.items() if version == MISSING],
        )

    # ── the gate ────────────────────────────────────────────────────────────────────────────────────────────────

    def _progress(self, now: float) -> None:
        if self._gate_closes_at is not None:
            self._gate_closes_at = now + self._gate_timeout_s

    def _wait(self, now: float) -> None:
        if self._gate_closes_at is None:
            self._gate_closes_at = now + self._gate_timeout_s


def _wrap(resource: Resource) -> discovery_pb2.Resource:
    return discovery_pb2.Resource(
        name=resource.name,
        version=resource.version,
        resource=any_pb2.Any(type_url=resource.type.value, value=resource.body),
    )
