"""The nftables backend over nf_tables in memory: what tests and the tracer run on."""

from collections.abc import Sequence

from pilotage.nft import FakeNft
from pilotage.proxy.backends.nftables import NftablesBackend
from pilotage.proxy.core.layout import Surroundings


class FakeBackend(NftablesBackend):
    """`nft.ruleset` is what the kernel would hold."""

    def __init__(self, *, families: Sequence[str] = ("ip", "ip6"), surroundings: Surroundings) -> None:
        self.nft = FakeNft()
        super().__init__(self.nft, families=families, surroundings=surroundings)
