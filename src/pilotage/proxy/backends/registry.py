"""Backends by the name that `--backend` takes.

Apart from the seam so that the seam imports no technology. A new backend is one module and one line here.
"""

from pilotage.nft import KernelNft
from pilotage.proxy.backends import Backend, BackendFactory
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.layout import Surroundings


def _nftables(families: tuple[str, ...], surroundings: Surroundings) -> Backend:
    return NftablesBackend(KernelNft(), families=families, surroundings=surroundings)


BACKENDS: dict[str, BackendFactory] = {"nftables": _nftables}
