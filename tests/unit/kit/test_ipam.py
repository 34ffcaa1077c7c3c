import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.kit.ipam import AddressPool, NumberPool, PoolExhaustedError


def test_fresh_numbers_come_before_released_ones() -> None:
    pool = NumberPool(1, 4)
    assert [pool.take(), pool.take()] == [1, 2]
    pool.release(1)
    assert [pool.take(), pool.take(), pool.take()] == [3, 4, 1]


def test_an_exhausted_pool_says_so() -> None:
    pool = NumberPool(1, 2, taken=(1,))
    assert pool.take() == 2
    with pytest.raises(PoolExhaustedError, match="all 2 numbers"):
        pool.take()


@pytest.mark.parametrize(
    ("network", "skip", "first", "size"),
    [
        ("10.0.0.0/30", 0, "10.0.0.1", 2),
        ("10.0.0.0/29", 1, "10.0.0.2", 5),
        ("10.0.0.7/32", 0, "10.0.0.7", 1),
        ("10.0.0.10-10.0.0.12", 0, "10.0.0.10", 3),
        ("fd00::/126", 0, "fd00::1", 3),
    ],
)
def test_a_network_hands_out_its_usable_addresses(network: str, skip: int, first: str, size: int) -> None:
    pool = AddressPool(network, skip=skip)
    taken = [pool.take() for _ in range(size)]
    assert taken[0] == first
    assert len(set(taken)) == size
    with pytest.raises(PoolExhaustedError):
        pool.take()


def test_reserve_refuses_what_is_taken_foreign_or_of_the_other_family() -> None:
    pool = AddressPool("10.0.0.0/24")
    assert pool.reserve("10.0.0.9")
    assert not pool.reserve("10.0.0.9")
    assert not pool.reserve("10.0.1.9")
    assert not pool.reserve("fd00::9")


@given(st.lists(st.tuples(st.sampled_from(["take", "reserve", "release"]), st.integers(0, 9)), max_size=60))
def test_a_number_is_never_in_two_hands(steps: list[tuple[str, int]]) -> None:
    pool, held = NumberPool(0, 9), set[int]()
    for action, number in steps:
        if action == "take":
            if len(held) == 10:
                with pytest.raises(PoolExhaustedError):
                    pool.take()
                continue
            taken = pool.take()
            assert taken not in held
            held.add(taken)
        elif action == "reserve":
            assert pool.reserve(number) == (number not in held)
            held.add(number)
        else:
            pool.release(number)
            held.discard(number)
        assert len(pool) == len(held)


def test_a_number_rests_even_if_it_was_reserved_ahead_of_its_turn() -> None:
    pool = NumberPool(1, 4)
    pool.reserve(1)
    pool.reserve(3)
    pool.release(3)
    pool.release(1)
    assert [pool.take() for _ in range(4)] == [2, 4, 3, 1]


def test_a_retired_number_is_the_last_choice() -> None:
    pool = NumberPool(1, 4, taken=(2,))
    assert [pool.retire(number) for number in (1, 2, 3, 1, 9)] == [True, False, True, True, False]
    assert [pool.take() for _ in range(3)] == [4, 3, 1]


@given(st.lists(st.tuples(st.sampled_from(["take", "reserve", "release", "retire"]), st.integers(0, 5)), max_size=60))
def test_what_was_free_for_longest_is_taken_first(steps: list[tuple[str, int]]) -> None:
    pool = NumberPool(0, 5)
    free = dict.fromkeys(range(6), 0)  # → when it became so
    for now, (action, number) in enumerate(steps, 1):
        match action:
            case "take" if free:
                taken = pool.take()
                assert free[taken] == min(free.values())
                del free[taken]
            case "reserve":
                pool.reserve(number)
                free.pop(number, None)
            case "release" if number not in free:
                pool.release(number)
                free[number] = now
            case "retire" if number in free:
                pool.retire(number)
                free[number] = now
