"""Keeps the node's table of host ports true.

Stands apart because it is the agent's only rule set; what is in it is `core.host_ports`'. The table is replaced as a
whole, in one transaction: pods with host ports are few, and connections that exist are not touched. nftables is opened
when the first such pod comes. Blocking calls of well under a millisecond.
"""

from collections.abc import Callable

from pilotage.agent.core import host_ports
from pilotage.api.core_v1 import Pod
from pilotage.nft import KernelNft, Nft


class HostPorts:
    """By pod uid."""

    def __init__(self, open_nft: Callable[[], Nft] = KernelNft) -> None:
        self._open_nft = open_nft
        self._nft: Nft | None = None
        self._pods: dict[str, tuple[str, Pod]] = {}  # uid → address, pod

    def publish(self, pod: Pod, address: str) -> None:
        """Lead the pod's host ports to `address`; repeatable. Raises `NftError`."""
        if host_ports.claims(pod) and not pod.spec.host_network:
            self._pods[pod.metadata.uid] = (address, pod)
            self._apply()

    def withdraw(self, pod: Pod) -> None:
        """Undo `publish`. No error when there is nothing. Raises `NftError`."""
        self._pods.pop(pod.metadata.uid, None)
        if host_ports.claims(pod) and not pod.spec.host_network:
            self._apply()

    def close(self) -> None:
        """Release what this process holds; the rules stay, as the pods do."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _apply(self) -> None:
        if self._nft is None:
            self._nft = self._open_nft()
        self._nft.apply(host_ports.plan(dict(self._pods.values())))
