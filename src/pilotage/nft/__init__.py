"""nftables as values.

Purpose: say what a rule set should be as plain values, make the kernel so in one transaction, read it back, and follow
a packet through it without a kernel.
Inputs → outputs: tables, chains, sets, rules and packed elements → transactions → nf_tables (text through libnftables
for structure, netlink batches for elements) or an in-memory rule set; a packet and a rule set → its fate.
Invariants: a transaction takes effect as a whole or not at all; the text of a value is its definition; nothing here
knows a Service, a Pod or another owner's table; no process is started.
Reading order: core/types, core/expressions, core/objects, core/wire, core/ruleset, core/tracer, kernel, fake.
Specifications: nft(8), libnftables(3), netlink(7), linux/netfilter/nf_tables.h.
"""

from pilotage.nft.errors import NftError
from pilotage.nft.fake import FakeNft
from pilotage.nft.kernel import KernelNft, Nft

__all__ = ["FakeNft", "KernelNft", "Nft", "NftError"]
