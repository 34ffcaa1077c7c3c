"""What every `Nft` must keep: run on the fake by the unit tests and on the kernel by the netns tests.

Stands apart so that fake and kernel cannot drift: both test files inherit from `NftSuite` and only make the subject.
"""

import time

import pytest

from pilotage.nft import Nft, NftError
from pilotage.nft.core.expressions import DADDR, DPORT, DROP, L4PROTO, Concat, Verdict, VerdictMap, goto, rule
from pilotage.nft.core.objects import (
    AddElements,
    AddSet,
    AddTable,
    Chain,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Hook,
    PutChain,
    Set,
    Table,
    Transaction,
)
from pilotage.nft.core.types import CLASS_ID, IPV4, PORT, PROTOCOL, Layout

TABLE = Table(family="ip", name="pilotage-suite")
FRONTEND = Layout((IPV4, PROTOCOL, PORT))
SERVICES = Set(name="services", key=FRONTEND, value="verdict")
BACKENDS = Set(name="backends", key=Layout((*FRONTEND.parts, CLASS_ID)), value=Layout((IPV4, PORT)))
ADDRESSES = Set(name="addresses", key=Layout((IPV4,)))
SOURCES = Set(name="sources", key=Layout((*FRONTEND.parts, IPV4)), interval=True)
REMEMBERED = Set(
    name="remembered", key=Layout((IPV4, PORT)), value=Layout((IPV4,)), dynamic=True, timeout_s=60, size=1000
)
SPREAD = Chain(name="spread", rules=(rule(DROP),))
DISPATCH = Chain(
    name="dispatch",
    rules=(rule(VerdictMap(Concat((DADDR["ip"], L4PROTO, DPORT)), "services")),),
    hook=Hook(type="filter", hook="prerouting", priority=-110),
)
STRUCTURE: tuple[Command, ...] = (
    AddTable(TABLE),
    *(AddSet(TABLE, one) for one in (SERVICES, BACKENDS, ADDRESSES, SOURCES, REMEMBERED)),
    PutChain(TABLE, SPREAD),
    PutChain(TABLE, DISPATCH),
)
VIP = FRONTEND.encode("10.96.0.1", "tcp", 80)
SLOT_1, SLOT_2 = (BACKENDS.key.encode("10.96.0.1", "tcp", 80, slot) for slot in (1, 2))
POD_A, POD_B = (Layout((IPV4, PORT)).encode(address, 8080) for address in ("10.244.1.2", "10.244.2.2"))


class NftSuite:
    """Inherit, and give an `nft` fixture with no table of the suite's name."""

    @pytest.fixture
    def built(self, nft: Nft) -> Nft:
        nft.apply(Transaction(STRUCTURE))
        return nft

    def test_a_table_is_there_after_it_is_added_and_gone_after_it_is_deleted(self, nft: Nft) -> None:
        assert not nft.has_table(TABLE)
        nft.apply(Transaction((AddTable(TABLE),)))
        assert nft.has_table(TABLE)
        nft.apply(Transaction((DeleteTable(TABLE),)))
        assert not nft.has_table(TABLE)

    def test_deleting_a_table_that_is_not_there_is_no_error(self, nft: Nft) -> None:
        nft.apply(Transaction((DeleteTable(TABLE),)))
        assert not nft.has_table(TABLE)

    def test_structure_may_be_applied_again(self, built: Nft) -> None:
        before = built.structure(TABLE)
        built.apply(Transaction((AddElements(TABLE, SERVICES, {VIP: goto("spread")}),)))
        built.apply(Transaction(STRUCTURE))
        assert built.structure(TABLE) == before
        assert built.elements(TABLE, SERVICES) == {VIP: goto("spread")}

    def test_structure_differs_when_a_rule_does(self, built: Nft) -> None:
        before = built.structure(TABLE)
        built.apply(Transaction((PutChain(TABLE, Chain(name="spread", rules=())),)))
        assert built.structure(TABLE) != before

    def test_an_absent_table_has_no_structure(self, nft: Nft) -> None:
        assert nft.structure(TABLE) == {}
        assert nft.chains(TABLE) == frozenset()

    def test_chains_are_listed_by_name(self, built: Nft) -> None:
        assert built.chains(TABLE) == {"spread", "dispatch"}

    def test_elements_of_every_kind_read_back_as_written(self, built: Nft) -> None:
        low, high = (
            SOURCES.key.encode("10.96.0.1", "tcp", 80, "192.0.2.0"),
            SOURCES.key.encode("10.96.0.1", "tcp", 80, "192.0.2.255"),
        )
        written: dict[Set, dict[bytes, bytes | Verdict | None]] = {
            SERVICES: {VIP: goto("spread"), FRONTEND.encode("10.96.0.2", "udp", 53): DROP},
            BACKENDS: {SLOT_1: POD_A, SLOT_2: POD_B},
            ADDRESSES: {IPV4.encode("10.96.0.1"): None},
            SOURCES: {low + high: None},
        }
        built.apply(Transaction(tuple(AddElements(TABLE, one, elements) for one, elements in written.items())))
        assert {one: built.elements(TABLE, one) for one in written} == written

    def test_more_elements_than_one_message_holds(self, built: Nft) -> None:
        many = {BACKENDS.key.encode(f"10.{i >> 8 & 255}.{i & 255}.1", "tcp", 80, 1): POD_A for i in range(20_000)}
        built.apply(Transaction((AddElements(TABLE, BACKENDS, many),)))
        deadline = time.monotonic() + 10.0  # the kernel may still be growing its table
        while len(built.elements(TABLE, BACKENDS)) < len(many) and time.monotonic() < deadline:
            pass
        assert built.elements(TABLE, BACKENDS) == many

    def test_a_value_changes_by_deleting_and_adding_in_one_transaction(self, built: Nft) -> None:
        built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
        built.apply(
            Transaction((DeleteElements(TABLE, BACKENDS, (SLOT_1,)), AddElements(TABLE, BACKENDS, {SLOT_1: POD_B})))
        )
        assert built.elements(TABLE, BACKENDS) == {SLOT_1: POD_B}

    def test_the_same_element_again_is_no_error(self, built: Nft) -> None:
        for _ in range(2):
            built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
        assert built.elements(TABLE, BACKENDS) == {SLOT_1: POD_A}

    def test_another_value_for_the_same_key_is_refused(self, built: Nft) -> None:
        built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
        with pytest.raises(NftError):
            built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_B}),)))
        assert built.elements(TABLE, BACKENDS) == {SLOT_1: POD_A}

    def test_a_refused_transaction_leaves_nothing_behind(self, built: Nft) -> None:
        with pytest.raises(NftError) as refused:
            built.apply(
                Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}), DeleteElements(TABLE, BACKENDS, (SLOT_2,))))
            )
        assert refused.value.errno == 2
        assert built.elements(TABLE, BACKENDS) == {}

    def test_it_works_again_after_a_refusal(self, built: Nft) -> None:
        with pytest.raises(NftError):
            built.apply(Transaction((DeleteElements(TABLE, BACKENDS, (SLOT_2,)),)))
        built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
        assert built.elements(TABLE, BACKENDS) == {SLOT_1: POD_A}

    def test_refused_text_leaves_nothing_behind(self, nft: Nft) -> None:
        leads_nowhere = Chain(name="lost", rules=(rule(goto("absent")),))
        with pytest.raises(NftError):
            nft.apply(Transaction((AddTable(TABLE), PutChain(TABLE, leads_nowhere))))
        assert not nft.has_table(TABLE)

    def test_an_element_that_leads_to_no_chain_is_refused(self, built: Nft) -> None:
        with pytest.raises(NftError) as refused:
            built.apply(Transaction((AddElements(TABLE, SERVICES, {VIP: goto("absent")}),)))
        assert refused.value.errno == 2

    def test_a_chain_in_use_cannot_be_deleted(self, built: Nft) -> None:
        built.apply(Transaction((AddElements(TABLE, SERVICES, {VIP: Verdict("goto", "spread")}),)))
        with pytest.raises(NftError):
            built.apply(Transaction((DeleteChain(TABLE, "spread"),)))
        built.apply(Transaction((DeleteElements(TABLE, SERVICES, (VIP,)),)))
        built.apply(Transaction((DeleteChain(TABLE, "spread"),)))
        assert built.chains(TABLE) == {"dispatch"}

    def test_elements_of_an_absent_set_are_an_error(self, nft: Nft) -> None:
        with pytest.raises(NftError) as refused:
            nft.elements(TABLE, SERVICES)
        assert refused.value.errno == 2

    def test_elements_are_looked_up_by_key(self, built: Nft) -> None:
        many = {BACKENDS.key.encode("10.96.0.1", "tcp", 80, slot): POD_A for slot in range(1, 1001)}
        built.apply(Transaction((AddElements(TABLE, BACKENDS, many), AddElements(TABLE, SERVICES, {VIP: DROP}))))
        absent = BACKENDS.key.encode("10.96.0.2", "tcp", 80, 1)
        assert built.lookup(TABLE, BACKENDS, [absent, *many, absent]) == many
        assert built.lookup(TABLE, SERVICES, [VIP]) == {VIP: DROP}
        assert built.lookup(TABLE, ADDRESSES, []) == {}
        with pytest.raises(NftError):
            built.apply(Transaction((DeleteElements(TABLE, BACKENDS, (absent,)),)))
        assert built.lookup(TABLE, BACKENDS, [SLOT_1]) == {SLOT_1: POD_A}, "a refusal before does not confuse it"

    def test_a_base_chain_can_be_emptied_and_deleted(self, built: Nft) -> None:
        built.apply(Transaction((PutChain(TABLE, Chain(name="dispatch")), DeleteChain(TABLE, "dispatch"))))
        assert built.chains(TABLE) == {"spread"}

    def test_a_base_chain_moves_by_deleting_and_putting_it_in_one_transaction(self, built: Nft) -> None:
        before = built.structure(TABLE)
        moved = Chain(name="dispatch", rules=DISPATCH.rules, hook=Hook(type="filter", hook="prerouting", priority=-111))
        for chain, alike in ((moved, False), (DISPATCH, True)):
            built.apply(Transaction((DeleteChain(TABLE, "dispatch"), PutChain(TABLE, chain))))
            assert (built.structure(TABLE) == before) is alike

    def test_a_set_can_be_deleted_unless_a_rule_names_it(self, built: Nft) -> None:
        built.apply(Transaction((DeleteSet(TABLE, "addresses"),)))
        with pytest.raises(NftError):
            built.elements(TABLE, ADDRESSES)
        with pytest.raises(NftError):
            built.apply(Transaction((DeleteSet(TABLE, "services"),)))
        built.apply(Transaction((DeleteChain(TABLE, "dispatch"), DeleteSet(TABLE, "services"))))

    def test_the_generation_grows_with_every_transaction_only(self, built: Nft) -> None:
        first = built.generation()
        assert built.generation() == first
        built.apply(Transaction((AddElements(TABLE, BACKENDS, {SLOT_1: POD_A}),)))
        assert built.generation() > first
