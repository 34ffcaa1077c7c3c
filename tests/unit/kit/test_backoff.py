import pytest

from pilotage.kit.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "delay_s"), [(0, 0.0), (1, 10.0), (2, 20.0), (5, 160.0), (6, 300.0), (10_000, 300.0)]
)
def test_delays_double_up_to_the_ceiling(failures: int, delay_s: float) -> None:
    assert Backoff(initial_s=10, max_s=300).delay_s(failures) == delay_s


def test_jitter_only_lengthens() -> None:
    backoff = Backoff(initial_s=1, max_s=10)
    assert backoff.delay_s(1, roll=0.0, jitter=0.5) == 1.0
    assert backoff.delay_s(1, roll=0.5, jitter=0.5) == 1.25
