"""Pools of numbers and addresses, as values of memory only.

Stands apart because pods, Services, node ports and load balancers all take the lowest free one of a range. Nothing is
written to disk here: an owner rebuilds its pool from the objects that hold the addresses. Not thread-safe.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable

from pilotage.kit.errors import PilotageError


class PoolExhaustedError(PilotageError):
    """Every number of the range is taken."""


class NumberPool:
    """The integers `first`…`last`; hands out one never used before, then the one released longest ago.

    Fresh numbers first: an address that was just released is the one somebody's cache still points to.
    Take and release are O(1) on average; memory grows with the numbers ever handed out, not with the range.
    """

    def __init__(self, first: int, last: int, *, taken: Iterable[int] = ()) -> None:
        if first > last:
            raise ValueError(f"empty range {first}-{last}")
        self.first, self.last = first, last
        self._taken: set[int] = set()
        self._fresh = first
        self._released: OrderedDict[int, None] = OrderedDict()  # free again, longest first
        for number in taken:
            self.reserve(number)

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def __len__(self) -> int:
        return len(self._taken)

    def take(self) -> int:
        """One free number; raises `PoolExhaustedError`."""
        while self._fresh <= self.last:
            number = self._fresh
            self._fresh += 1
            if number not in self._taken and number not in self._released:
                self._taken.add(number)
                return number
        if self._released:
            number, _ = self._released.popitem(last=False)
            self._taken.add(number)
            return number
        raise PoolExhaustedError(f"all {self.last - self.first + 1} numbers of {self.first}-{self.last} are in use")

    def reserve(self, number: int) -> bool:
        """Take exactly `number`; False if it is taken already or outside the range."""
        if number in self._taken or not self.first <= number <= self.last:
            return False
        self._taken.add(number)
        self._released.pop(number, None)
        return True

    def retire(self, number: int) -> bool:
        """A free number counts as released just now; False if it is taken or outside the range."""
        if number in self._taken or not self.first <= number <= self.last:
            return False
        self._released[number] = None
        self._released.move_to_end(number)
        return True

    def release(self, number: int) -> None:
        """Give `number` back; unknown numbers are ignored, so a release may be repeated."""
        if number in self._taken:
            self._taken.discard(number)
            self.retire(number)


class AddressPool:
    """The usable addresses of a network (or of an inclusive `first`-`last` range), as text."""

    def __init__(self, network: str, *, taken: Iterable[str] = (), skip: int = 0) -> None:
        """`network`: CIDR or `first-last`. `skip`: how many of the lowest usable addresses are never handed out."""
        if "-" in network:
            low, high = (ipaddress.ip_address(part.strip()) for part in network.split("-", 1))
            first, last = int(low), int(high)
            self.version = low.version
        else:
            parsed = ipaddress.ip_network(network)
            self.version = parsed.version
            whole = parsed.num_addresses <= 2
            first = int(parsed.network_address) + (0 if whole else 1)
            last = int(parsed.broadcast_address) - (0 if whole or parsed.version == 6 else 1)
        self._numbers = NumberPool(first + skip, last)
        for address in taken:
            self.reserve(address)

    def __contains__(self, address: str) -> bool:
        return int(ipaddress.ip_address(address)) in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self) -> str:
        """One free address; raises `PoolExhaustedError`."""
        number = self._numbers.take()
        return str(ipaddress.IPv4Address(number) if self.version == 4 else ipaddress.IPv6Address(number))

    def reserve(self, address: str) -> bool:
        """Take exactly `address`; False if taken or outside the pool."""
        parsed = ipaddress.ip_address(address)
        return parsed.version == self.version and self._numbers.reserve(int(parsed))

    def retire(self, address: str) -> bool:
        """A free address counts as released just now; False if it is taken or outside the pool."""
        parsed = ipaddress.ip_address(address)
        return parsed.version == self.version and self._numbers.retire(int(parsed))

    def release(self, address: str) -> None:
        """Give `address` back; repeating it does no harm."""
        self._numbers.release(int(ipaddress.ip_address(address)))

    def covers(self, address: str) -> bool:
        """Whether `address` lies in the range, taken or not."""
        parsed = ipaddress.ip_address(address)
        return parsed.version == self.version and self._numbers.first <= int(parsed) <= self._numbers.last
