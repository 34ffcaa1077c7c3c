"""Whose pods ask: the namespace that a client's address belongs to.

Apart from `watching`, which feeds it, because addresses pass from pod to pod: the news of an old pod's end may come
after that of the pod which has its address now.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pilotage.api.core_v1 import Pod

FINISHED = ("Succeeded", "Failed")
"""Pods that are over; their status still shows the address that was theirs."""


class Askers:
    """By address, as sockets spell it."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, str]] = {}  # → namespace, uid

    def namespace_of(self, client: str) -> str:
        """Empty when no pod has the address."""
        owner = self._owners.get(client)
        return owner[0] if owner is not None else ""

    def set(self, old: Pod | None, new: Pod | None) -> None:
        """Apply one change of a pod."""
        if old is not None:
            for address in _addresses(old):
                if self._owners.get(address) == _owner(old):
                    del self._owners[address]
        if new is not None:
            for address in _addresses(new):
                self._owners[address] = _owner(new)


def _owner(pod: Pod) -> tuple[str, str]:
    return pod.metadata.namespace, pod.metadata.uid


def _addresses(pod: Pod) -> Iterator[str]:
    if pod.spec.host_network or pod.status.phase in FINISHED:
        return  # a node's own address is everybody's
    for address in pod.status.pod_ips or ():
        try:
            yield str(ipaddress.ip_address(address.ip))
        except ValueError:
            continue
