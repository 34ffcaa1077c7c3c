"""The cluster's objects as DNS needs them, and the compiled answers, kept up to date per changed object.

Answers are compiled when first asked and dropped when the one object they depend on changes: an update costs what the
object is large, whatever the cluster's size, and a start costs an index, not a zone. The alternative, compiling every
name in advance, lost: most names are never asked, and negative answers, which search lists ask for most, have no end.

Fed by the shell's informers through `set_*`; asked by every listener. `fast` is the hot path's dict: a listener looks
there first and calls `respond` only on a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import Endpoint, EndpointSlice
from pilotage.dns.core.leases import Leases
from pilotage.dns.core.name import Name, is_within, pack_address
from pilotage.dns.core.record import CLASS_IN, Rcode
from pilotage.dns.core.records import (
    RecordSets,
    ZoneSettings,
    cluster_addresses,
    endpoint_label,
    endpoint_records,
    is_published,
    service_name,
    service_records,
)
from pilotage.dns.core.transfer import ZoneView
from pilotage.dns.core.ttl import Ages
from pilotage.dns.core.wire import (
    STREAM_BYTES_MAX,
    Compiled,
    Query,
    compile_answer,
    fast_key,
    is_fast,
    rcode_reply,
)
from pilotage.dns.core.zone import Answer, Zone

ANSWERS_MAX = 50_000
"""Compiled answers, about 700 bytes each with key and index: 35 MB. When full, all go: what is asked comes back."""
RECORD_SETS_MAX = 1_024
"""Services whose record sets are kept between questions; a Service of ten endpoints takes 6 kB."""

ServiceKey = tuple[str, str]
SliceKey = tuple[str, str, str]  # namespace, Service, slice
Endpoints = Callable[[Service, Iterable[EndpointSlice], ZoneSettings], RecordSets]
_Key = TypeVar("_Key", ServiceKey, SliceKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSnapshot:
    """Sizes, for metrics and debugging."""

    services: int
    slices: int
    addresses: int
    compiled: int
    synced: bool


class Table:
    """Everything that is answered without asking anybody."""

    def __init__(
        self,
        settings: ZoneSettings,
        *,
        recursion: bool,
        answers_max: int = ANSWERS_MAX,
        endpoints: Endpoints = endpoint_records,
    ) -> None:
        self.settings = settings
        self.serial = 0
        """The SOA serial: the time of the last change."""
        self.synced = False
        """Before the first complete view of the cluster its names are SERVFAIL: a guess would be cached."""
        self.fast: dict[bytes, Compiled] = {}
        """Compiled replies, without id, by `wire.fast_key`. Always the same dict, so that listeners may hold it."""
        self.ages: Ages | None = None
        """What makes TTLs grow while objects are quiet; None: one TTL for all. Set by `set_ttl`."""
        self.leases: Leases | None = None
        """Who remembers which address was told until when; None: nobody asks."""
        self._serial_told = False
        self.recursion = recursion
        self._answers_max = answers_max
        self._endpoints = endpoints
        self._beside: Table | None = None  # the cluster set's, once there is one
        self._keys: dict[Hashable, list[bytes]] = {}  # the keys in `fast` by scope
        self._zone = Zone(settings, self)
        self._services: dict[ServiceKey, Service] = {}
        self._slices: dict[ServiceKey, dict[str, EndpointSlice]] = {}
        self._namespaces: set[str] = set()
        self._pods: dict[tuple[str, bytes], set[str]] = {}
        self._cluster_addresses: dict[bytes, tuple[ServiceKey, ...]] = {}
        self._endpoint_addresses: dict[bytes, tuple[SliceKey, ...]] = {}
        self._service_sets: dict[ServiceKey, RecordSets] = {}
        self._endpoint_sets: dict[ServiceKey, RecordSets] = {}

    # ── answering ───────────────────────────────────────────────────────────────────────────────────────────────────

    def respond(self, data: bytes, query: Query, *, stream: bool = False) -> bytes | Answer | None:
        """The whole reply; an `Answer` whose `follow` is for the upstreams; None if the question is theirs altogether.

        `data` is the packet of `query`. A reply that depends on one object only is kept for the hot path.
        """
        if query.edns_version:
            return rcode_reply(query, Rcode.BADVERS, recursion=self.recursion)
        if query.rclass != CLASS_IN:
            return None
        answer = self.answer(query.name, query.rtype)
        if answer is None or answer.follow is not None:
            return answer
        kept = not stream and answer.scope is not None and is_fast(data, query)
        if self.leases is not None and answer.answers:
            self.leases.told(answer, kept=kept)
        bytes_max = STREAM_BYTES_MAX if stream else query.answer_bytes_max
        compiled = compile_answer(query, answer, bytes_max=bytes_max, recursion=self.recursion)
        if kept and answer.scope is not None:
            self.keep(fast_key(data), compiled, answer.scope)
        return data[:2] + (compiled if isinstance(compiled, bytes) else compiled())

    def answer(self, name: Name, rtype: int) -> Answer | None:
        """The answer of class IN as records; None when the name is not ours."""
        if self._beside is not None and is_within(name, self._beside.settings.zone):
            return self._beside.answer(name, rtype)
        if not self.synced and self._is_ours(name):
            return Answer(rcode=Rcode.SERVFAIL, authoritative=False)
        return self._zone.answer(name, rtype)

    def _is_ours(self, name: Name) -> bool:
        return is_within(name, self.settings.zone) or any(is_within(name, zone) for zone in self.settings.reverse_zones)

    def adopt(self, other: Table) -> None:
        """Answer the names of another zone from `other`; whoever changes `other` drops the same scopes here."""
        self._beside = other

    def keep(self, key: bytes, compiled: Compiled, scope: Hashable) -> None:
        """Serve `compiled` for `key` until `drop(scope)`."""
        if len(self.fast) >= self._answers_max:
            self.forget_answers(recursion=self.recursion)
        if key not in self.fast:
            self._keys.setdefault(scope, []).append(key)
        self.fast[key] = compiled

    def drop(self, scope: Hashable) -> None:
        """Forget what was compiled from the object that `scope` names."""
        for key in self._keys.pop(scope, ()):
            self.fast.pop(key, None)
        if self.leases is not None:
            self.leases.dropped(scope)

    def set_ttl(self, settings: ZoneSettings, ages: Ages | None) -> None:
        """Answer by other settings from now on."""
        self.settings, self.ages = settings, ages
        self._zone = Zone(settings, self)
        self._service_sets.clear()
        self._endpoint_sets.clear()
        self.forget_answers(recursion=self.recursion)

    def grow_ttls(self, now: float) -> None:
        """Forget what says a shorter TTL than its object deserves by now; called every second or so."""
        for scope in self.ages.due(now) if self.ages is not None else ():
            self._forget_answers_of(cast(ServiceKey, scope))

    def _settings_of(self, key: ServiceKey) -> ZoneSettings:
        return self.settings if self.ages is None else replace(self.settings, ttl=self.ages.ttl(key))

    def forget_answers(self, *, recursion: bool) -> None:
        """Drop every compiled answer, because what decides about them has changed; `recursion` is the RA bit."""
        self.recursion = recursion
        self.fast.clear()
        self._keys.clear()
        if self.leases is not None:
            self.leases.dropped_all()

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def set_service(self, old: Service | None, new: Service | None) -> None:
        """One Service changed; None stands for its absence before or after."""
        either = new or old
        assert either is not None
        key = (either.metadata.namespace, either.metadata.name)
        old = self._services.get(key)  # what this table holds, not what the caller remembers
        self._forget(key)
        before = set(cluster_addresses(old)) if old is not None else set()
        after = set(cluster_addresses(new)) if new is not None else set()
        for address in before - after:
            _discard(self._cluster_addresses, address, key)
        for address in after - before:
            self._cluster_addresses[address] = (*self._cluster_addresses.get(address, ()), key)
        if new is None:
            self._services.pop(key, None)
        else:
            self._services[key] = new
        for address in before ^ after:
            self.drop(address)
        if old is None or new is None or _publishing(old) != _publishing(new):
            for part in self._slices.get(key, {}).values():
                for address in _addresses(part):
                    self.drop(address)  # whether these have a PTR depends on the Service

    def set_slice(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """One slice changed; a changed label moves it from one Service to another."""
        for known in (old, new):
            if known is not None:
                self._remove_slice(known)
        if new is not None and new.service_name:
            self._add_slice(new)

    def _add_slice(self, part: EndpointSlice) -> None:
        key = (part.metadata.namespace, part.service_name)
        self._forget(key)
        self._slices.setdefault(key, {})[part.metadata.name] = part
        owner = ((*key, part.metadata.name),)  # one tuple shared by all addresses: there may be 100,000
        for address in _addresses(part):
            self._endpoint_addresses[address] = self._endpoint_addresses.get(address, ()) + owner
            self.drop(address)

    def _remove_slice(self, part: EndpointSlice) -> None:
        key = (part.metadata.namespace, part.service_name)
        parts = self._slices.get(key, {})
        held = parts.pop(part.metadata.name, None)
        if held is None:
            return
        if not parts:
            del self._slices[key]
        self._forget(key)
        for address in _addresses(held):
            _discard(self._endpoint_addresses, address, (*key, part.metadata.name))
            self.drop(address)

    def advance_serial(self, now: int) -> None:
        """The zone changed at `now`, in seconds. A serial that somebody was told never stands for another content."""
        if now > self.serial or self._serial_told:
            self.serial = max(now, self.serial + 1)
            self._serial_told = False

    def set_namespace(self, name: str, *, exists: bool) -> None:
        if exists:
            self._namespaces.add(name)
        else:
            self._namespaces.discard(name)
        self.drop(name)

    def set_pod(self, namespace: str, name: str, address: str, *, exists: bool) -> None:
        """One pod has, or no longer has, this address. Needed for verified pod records only; those are never kept."""
        packed = pack_address(address)
        if packed is None:
            return
        names = self._pods.setdefault((namespace, packed), set())
        if exists:
            names.add(name)
        else:
            names.discard(name)
        if not names:
            del self._pods[(namespace, packed)]

    def _forget(self, key: ServiceKey) -> None:
        """A Service or its slices changed: everything computed from them."""
        if self.ages is not None and self.synced:
            self.ages.changed(key)
        self._forget_answers_of(key)

    def _forget_answers_of(self, key: ServiceKey) -> None:
        self._service_sets.pop(key, None)
        self._endpoint_sets.pop(key, None)
        self.drop(key)

    # ── what the zone reads ─────────────────────────────────────────────────────────────────────────────────────────

    def service(self, namespace: str, name: str) -> Service | None:
        return self._services.get((namespace, name))

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """In order of name, so that the same objects give the same answer whatever the order of their arrival."""
        parts = self._slices.get((namespace, service), {})
        return [parts[name] for name in sorted(parts)]

    def service_sets(self, service: Service) -> RecordSets:
        key = (service.metadata.namespace, service.metadata.name)
        sets = self._service_sets.get(key)
        if sets is None:
            sets = service_records(service, self._settings_of(key))
            _bounded_set(self._service_sets, key, sets)
        return sets

    def endpoint_sets(self, service: Service) -> RecordSets:
        key = (service.metadata.namespace, service.metadata.name)
        sets = self._endpoint_sets.get(key)
        if sets is None:
            sets = self._endpoints(service, self.slices(*key), self._settings_of(key))
            _bounded_set(self._endpoint_sets, key, sets)
        return sets

    def has_namespace(self, namespace: str) -> bool:
        return namespace in self._namespaces

    def has_pod(self, namespace: str, address: bytes) -> bool:
        return (namespace, address) in self._pods

    def names_of_address(self, address: bytes) -> Iterator[Name]:
        """A ClusterIP's Service; an endpoint's name, one per Service that has it."""
        for key in self._cluster_addresses.get(address, ()):
            yield service_name(*key, self.settings)
        found: dict[ServiceKey, bytes] = {}
        for namespace, name, part in self._endpoint_addresses.get(address, ()):
            service = self._services.get((namespace, name))
            if service is None:
                continue
            for endpoint in self._slices[(namespace, name)][part].endpoints:
                if not _has(endpoint, address) or not is_published(service, endpoint):
                    continue
                label = endpoint_label(endpoint)
                if label is not None:
                    key = (namespace, name)
                    found[key] = min(label, found.get(key, label))
        for key, label in found.items():
            yield (label, *service_name(*key, self.settings))

    def told_serial(self) -> int:
        """The serial, for who will compare it with a later one."""
        self._serial_told = True
        return self.serial

    def view(self) -> ZoneView:
        """Everything that the zone consists of at this moment; costs one pass over the Services."""
        services = tuple((service, tuple(self.slices(*key))) for key, service in self._services.items())
        return ZoneView(settings=self.settings, serial=self.told_serial(), services=services)

    def snapshot(self) -> TableSnapshot:
        return TableSnapshot(
            services=len(self._services),
            slices=sum(map(len, self._slices.values())),
            addresses=len(self._endpoint_addresses),
            compiled=len(self.fast),
            synced=self.synced,
        )


def _addresses(part: EndpointSlice) -> set[bytes]:
    if part.address_type == "FQDN":
        return set()
    packed = (pack_address(endpoint.addresses[0]) for endpoint in part.endpoints if endpoint.addresses)
    return {address for address in packed if address is not None}


def _has(endpoint: Endpoint, address: bytes) -> bool:
    return bool(endpoint.addresses) and pack_address(endpoint.addresses[0]) == address


def _publishing(service: Service) -> bool:
    return service.spec.publish_not_ready_addresses


def _discard(index: dict[bytes, tuple[_Key, ...]], address: bytes, key: _Key) -> None:
    left = tuple(owner for owner in index.get(address, ()) if owner != key)
    if left:
        index[address] = left
    else:
        index.pop(address, None)


def _bounded_set(sets: dict[ServiceKey, RecordSets], key: ServiceKey, value: RecordSets) -> None:
    if len(sets) >= RECORD_SETS_MAX:
        sets.clear()
    sets[key] = value
