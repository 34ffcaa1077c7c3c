"""Addresses of this node's pods: which are free, and which of these was let go of longest ago.

Apart from `pod_network` because of its memory. A name that was told lives on in resolvers, connection pools and caches
for the time that DNS said (its /leases export shows how long); whoever believes it should find nobody, not another pod.
So an address is given again as late as the range allows: first those never given, then the one free for longest, also
across a restart of the agent. The file lies where it does not survive the machine's restart, which no pod does either.
"""

import contextlib
import ipaddress
import json
import os
from pathlib import Path

from pilotage.agent.metrics import ADDRESS_REST_SECONDS
from pilotage.kit.clock import Clock
from pilotage.kit.ipam import AddressPool

REMEMBERED_MAX = 1_000
"""Addresses let go of last that survive a restart, about 35 bytes each; written whenever one is let go of."""


class PodAddresses:
    """One range."""

    def __init__(self, network: str, memory: Path, clock: Clock) -> None:
        """The first address is left to the bridge."""
        self._pool = AddressPool(network, skip=1)
        self._memory = memory
        self._clock = clock
        self._free_since: dict[str, float] = {}  # of those let go of, longest ago first; seconds since 1970
        for address, since in self._remembered().items():
            if self._pool.retire(address):
                self._free_since[address] = since

    def take(self) -> str:
        """One that nobody has. Raises `PoolExhaustedError`."""
        address = self._pool.take()
        since = self._free_since.pop(address, None)
        if since is not None:
            ADDRESS_REST_SECONDS.observe(max(0.0, self._clock.wall().timestamp() - since))
        return address

    def reserve(self, address: str) -> None:
        """A pod has it."""
        if self._pool.reserve(address):
            self._free_since.pop(address, None)

    def release(self, address: str) -> None:
        """The pod that had it is gone."""
        self._pool.release(address)
        self._let_go(address)

    def retire(self, address: str) -> None:
        """A pod had it before this process came, and is gone."""
        if self._pool.retire(address):
            self._let_go(address)

    def _let_go(self, address: str) -> None:
        self._free_since.pop(address, None)
        self._free_since[address] = self._clock.wall().timestamp()
        last = list(self._free_since.items())[-REMEMBERED_MAX:]
        beside = self._memory.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk keeps no pod from ending; a restart then knows less
            beside.write_text(json.dumps(dict(last)))
            os.replace(beside, self._memory)

    def _remembered(self) -> dict[str, float]:
        try:
            found = json.loads(self._memory.read_text())
            return {str(ipaddress.ip_address(address)): float(since) for address, since in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
