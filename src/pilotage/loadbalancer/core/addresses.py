"""Which address each LoadBalancer Service has.

Apart from the assigner so that conflicts, exhaustion and changes of mind are a table of values. The book is rebuilt
from the Services themselves: what a Service's status says is true as long as nobody older says the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotage.api import services
from pilotage.api.core_v1 import Service
from pilotage.kit.ipam import AddressPool, PoolExhaustedError

CLASS = "pilotage.dev/loadbalancer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a Service's status should say."""

    address: str = ""  # of the book's family; empty: none
    reason: str = ""  # why none, although it wants one; CamelCase
    message: str = ""


def wants_address(service: Service) -> bool:
    """Whether this balancer serves it: the type, and a class that is ours or unset (KEP-1959)."""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.load_balancer_class in ("", CLASS) and not service.metadata.is_deleting


def family_of(address: str) -> str:
    """IPv4 or IPv6, of an address, a CIDR or a range."""
    return "IPv6" if ":" in address else "IPv4"


def assigned_addresses(service: Service) -> tuple[str, ...]:
    """The addresses its status states, in its order."""
    return tuple(ingress.ip for ingress in service.status.load_balancer.ingress if ingress.ip)


class AddressBook:
    """Addresses of one family by Service key. Deciding is O(log n); memory one entry per LoadBalancer Service."""

    def __init__(self, pools: Sequence[str], family: str = "IPv4") -> None:
        """`pools`: CIDRs or `first-last` ranges, used in order; those of another family are left out.

        Of a CIDR the network and broadcast addresses are kept back; a range is given out whole.
        """
        self.family = family
        self._pools = tuple(AddressPool(pool) for pool in pools if family_of(pool) == family)
        self._held: dict[str, str] = {}

    def restore(self, services: Iterable[Service]) -> None:
        """Learn what is assigned already; of two Services with one address the older keeps it."""
        for service in sorted(
            services, key=lambda service: (service.metadata.creation_timestamp, service.metadata.key)
        ):
            if wants_address(service) and (address := self._stated(service)):
                self._hold(service.metadata.key, address)

    def decide(self, service: Service) -> Decision:
        """The address of one Service; takes or releases as needed. The same Service gets the same answer again."""
        key, asked = service.metadata.key, service.spec.load_balancer_ip
        if asked and family_of(asked) != self.family:
            asked = ""
        if not wants_address(service) or self.family not in services.families(service):
            self.release(key)
            return Decision()
        held = self._held.get(key, "")
        if held and asked in ("", held):
            return Decision(address=held)
        if asked:
            self.release(key)
            if self._hold(key, asked):
                return Decision(address=asked)
            owner = next((other for other, address in self._held.items() if address == asked), "")
            why = f"belongs to {owner}" if owner else "is in none of the pools"
            return Decision(reason="AllocationFailed", message=f"loadBalancerIP {asked} {why}")
        stated = self._stated(service)
        if stated and self._hold(key, stated):
            return Decision(address=stated)
        for pool in self._pools:
            try:
                address = pool.take()
            except PoolExhaustedError:
                continue
            self._held[key] = address
            return Decision(address=address)
        if not self._pools:
            return Decision(reason="AllocationFailed", message=f"none of the pools has {self.family} addresses")
        return Decision(reason="AllocationFailed", message=f"all {len(self._held)} addresses of the pools are in use")

    def release(self, key: str) -> bool:
        """The Service is gone or wants none; True if that freed an address."""
        address = self._held.pop(key, "")
        for pool in self._pools if address else ():
            if pool.covers(address):
                pool.release(address)
        return bool(address)

    def _stated(self, service: Service) -> str:
        return next((ip for ip in assigned_addresses(service) if family_of(ip) == self.family), "")

    def _hold(self, key: str, address: str) -> bool:
        if self._held.get(key) == address:
            return True
        try:
            taken = any(pool.reserve(address) for pool in self._pools)
        except ValueError:  # no address at all; the API server lets any text through for loadBalancerIP
            return False
        if taken:
            self._held[key] = address
        return taken
