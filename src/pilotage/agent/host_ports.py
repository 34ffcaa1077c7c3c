"""Keeps the node's tables of host ports true.

Stands apart because it is the agent's only rule set; what is in it is `core.host_ports`'. The tables are replaced as a
whole, in one transaction: pods with host ports are few, and connections that exist are not touched. nftables is opened
when the first such pod comes. Blocking calls of well under a millisecond.
"""

from collections.abc import Callable, Iterable, Sequence

from pilotage.agent.core import host_ports
from pilotage.api.core_v1 import Pod
from pilotage.nft import KernelNft, Nft


class HostPorts:
    """By pod uid."""

    def __init__(self, pod_cidrs: Iterable[str], open_nft: Callable[[], Nft] = KernelNft) -> None:
        """`pod_cidrs`: of each family in which pods have addresses one."""
        self._families = [host_ports.family_of(cidr) for cidr in pod_cidrs]
        self._open_nft = open_nft
        self._nft: Nft | None = None
        self._pods: dict[str, tuple[Sequence[str], Pod]] = {}  # uid → addresses, pod

    def publish(self, pod: Pod, addresses: Sequence[str]) -> None:
        """Lead the pod's host ports to `addresses`, of each family one; repeatable. Raises `NftError`."""
        if host_ports.claims(pod) and not pod.spec.host_network:
            self._pods[pod.metadata.uid] = (addresses, pod)
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
        pods = {address: pod for addresses, pod in self._pods.values() for address in addresses}
        self._nft.apply(host_ports.plan(pods, self._families))
