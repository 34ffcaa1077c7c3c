"""Which Service has which address of the pools.

Stands apart from the assigner because every rule of assignment is here, as values: a Service in, a verdict out. The
`Assignments` are rebuilt from the Services' own status at start, so nothing is stored elsewhere. Leaves out sharing one
address among Services.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotage.api.core_v1 import Service
from pilotage.kit.ipam import AddressPool, PoolExhaustedError

LOAD_BALANCER_CLASS = "pilotage.dev/l2"
CONDITION = "pilotage.dev/AddressAssigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a Service's status should say."""

    addresses: tuple[str, ...]  # in the order of spec.ipFamilies
    reason: str  # Assigned, PoolExhausted, AddressInUse, AddressOutsidePools or InvalidAddress; CamelCase, stable
    message: str

    @property
    def assigned(self) -> bool:
        return self.reason == "Assigned"


def is_wanted(service: Service, load_balancer_class: str = LOAD_BALANCER_CLASS) -> bool:
    """Whether the Service asks for an address, and asks us (KEP-1959: a class names its balancer)."""
    return (
        service.spec.type == "LoadBalancer"
        and not service.metadata.is_deleting
        and service.spec.load_balancer_class in ("", load_balancer_class)
    )


class Assignments:
    """The pools and who has what of them. Decisions depend on their order; the result never shares an address."""

    def __init__(self, pools: Iterable[str]) -> None:
        """`pools`: CIDRs or `first-last` ranges, tried in this order; raises ValueError."""
        self._pools = [AddressPool(pool) for pool in pools]
        self._held: dict[str, tuple[str, ...]] = {}
        self._holders: dict[str, str] = {}

    def held(self, service: str) -> tuple[str, ...]:
        """The addresses of a Service (`namespace/name`)."""
        return self._held.get(service, ())

    def holder(self, address: str) -> str:
        """The Service that has an address; empty if none."""
        return self._holders.get(address, "")

    def is_ours(self, address: str) -> bool:
        """Whether an address lies in one of the pools."""
        return any(pool.covers(address) for pool in self._pools if _is_address(address))

    def restore(self, services: Iterable[Service], load_balancer_class: str = LOAD_BALANCER_CLASS) -> None:
        """Take over what Services already state; of two that state the same, the older keeps it."""
        for service in sorted(services, key=lambda one: (one.metadata.creation_timestamp, one.metadata.key)):
            if not is_wanted(service, load_balancer_class):
                continue
            for address in stated(service):
                if self.is_ours(address):
                    self._reserve(service.metadata.key, address)

    def assign(self, service: Service) -> Verdict:
        """Addresses for a Service that `is_wanted`: those it has, as far as they still fit, else new ones."""
        key = service.metadata.key
        requested = service.spec.load_balancer_ip
        families = service.spec.ip_families or ("IPv4",)
        if requested and (refusal := self._refuse_requested(key, requested)):
            self.release(key)
            return refusal
        chosen: list[str] = []
        missing: list[str] = []
        for family in families:
            version = 6 if family == "IPv6" else 4
            if requested and ipaddress.ip_address(requested).version == version:
                chosen.append(requested)
                continue
            has = next((address for address in self.held(key) if _version(address) == version), "")
            if not has:
                has = self._take(version)
            if has:
                chosen.append(has)
            else:
                missing.append(family)
        for address in self.held(key):
            if address not in chosen:
                self._release(address)
        for address in chosen:
            self._reserve(key, address)
        self._held[key] = tuple(chosen)
        if not chosen:
            return Verdict(addresses=(), reason="PoolExhausted", message=f"no free {' or '.join(missing)} address")
        # One family is better than none; which one is missing is said.
        message = f"no free {' or '.join(missing)} address" if missing else ""
        return Verdict(addresses=tuple(chosen), reason="Assigned", message=message)

    def release(self, service: str) -> tuple[str, ...]:
        """Free everything a Service has; returns what that was."""
        addresses = self._held.pop(service, ())
        for address in addresses:
            self._release(address)
        return addresses

    def _refuse_requested(self, key: str, requested: str) -> Verdict | None:
        if not _is_address(requested):
            return Verdict(addresses=(), reason="InvalidAddress", message=f"{requested[:64]!r} is no address")
        if not self.is_ours(requested):
            return Verdict(addresses=(), reason="AddressOutsidePools", message=f"{requested} is in no pool")
        holder = self.holder(requested)
        if holder not in ("", key):
            return Verdict(addresses=(), reason="AddressInUse", message=f"{requested} belongs to Service {holder}")
        return None

    def _take(self, version: int) -> str:
        for pool in self._pools:
            if pool.version == version:
                try:
                    return pool.take()
                except PoolExhaustedError:
                    continue
        return ""

    def _reserve(self, key: str, address: str) -> None:
        if self._holders.setdefault(address, key) != key:
            return
        for pool in self._pools:
            if pool.covers(address):
                pool.reserve(address)
                break
        if address not in self.held(key):
            self._held[key] = (*self.held(key), address)

    def _release(self, address: str) -> None:
        self._holders.pop(address, None)
        for pool in self._pools:
            if pool.covers(address):
                pool.release(address)


def stated(service: Service) -> Sequence[str]:
    """The addresses a Service's status states."""
    return [ingress.ip for ingress in service.status.load_balancer.ingress if ingress.ip]


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
