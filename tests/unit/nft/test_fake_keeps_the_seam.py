"""The suite of the `Nft` seam, on nf_tables in memory."""

import pytest

from pilotage.nft import FakeNft, Nft
from pilotage.testing.nft_suite import NftSuite


class TestFakeNft(NftSuite):
    @pytest.fixture
    def nft(self) -> Nft:
        return FakeNft()
