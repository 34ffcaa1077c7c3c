"""The suite of the `Nft` seam, on the kernel."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotage.nft import KernelNft, Nft, NftError
from pilotage.nft.core.objects import AddElements, DeleteElements, DeleteTable, Transaction
from pilotage.testing.nft_suite import BACKENDS, POD_A, SLOT_1, STRUCTURE, TABLE, NftSuite


@pytest.fixture
def nft() -> Iterator[KernelNft]:
    kernel = KernelNft()
    kernel.apply(Transaction((DeleteTable(TABLE),)))
    yield kernel
    kernel.apply(Transaction((DeleteTable(TABLE),)))
    kernel.close()


class TestKernelNft(NftSuite):
    @pytest.fixture
    def nft(self, nft: KernelNft) -> Nft:
        return nft


def test_syntax_that_nft_refuses_is_one_line(nft: KernelNft) -> None:
    with pytest.raises(NftError) as refused:
        nft._library.run("add rubbish\nadd more rubbish")
    assert "\n" not in str(refused.value)


def test_memory_stays_when_elements_and_text_come_and_go(nft: KernelNft) -> None:
    nft.apply(Transaction(STRUCTURE))

    def churn(times: int) -> None:
        for _ in range(times):
            nft.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
            nft.apply(Transaction((DeleteElements(TABLE, BACKENDS, (SLOT_1,)),)))
            nft.apply(Transaction(STRUCTURE))
            nft.structure(TABLE)

    churn(50)  # what is allocated once
    before = _resident_kib()
    churn(300)
    assert _resident_kib() - before < 1024


def _resident_kib() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])
