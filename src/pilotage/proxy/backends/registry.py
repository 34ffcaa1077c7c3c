"""Backends by the name that `--backend` takes.

Apart from the seam so that the seam imports no technology. A new backend is one module and one line here.
"""

from pilotage.nft import KernelNft
from pilotage.proxy.backends import Backend, BackendFactory
from pilotage.proxy.backends.iptables import IptablesBackend
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.backends.xtables import Flavour, KernelXtables, host_flavour
from pilotage.proxy.core.layout import Surroundings


def _nftables(families: tuple[str, ...], surroundings: Surroundings) -> Backend:
    return NftablesBackend(KernelNft(), families=families, surroundings=surroundings)


def _iptables(flavour: Flavour) -> BackendFactory:
    return lambda families, surroundings: IptablesBackend(
        KernelXtables(flavour), families=families, surroundings=surroundings
    )


BACKENDS: dict[str, BackendFactory] = {
    "nftables": _nftables,
    "iptables-legacy": _iptables("legacy"),
    "iptables-nft": _iptables("nft"),
}
NAMES = (*BACKENDS, "iptables")


def resolve(name: str) -> str:
    """The key in `BACKENDS` that a name of `NAMES` stands for: `iptables` is whichever flavour the host calls so."""
    return f"iptables-{host_flavour()}" if name == "iptables" else name
