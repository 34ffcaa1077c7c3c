from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("100m", Decimal("0.1")),
        ("1.5Gi", 3 * 2**29),
        ("2e3", 2000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("-1k", -1000),
        (".5", Decimal("0.5")),
        ("5.", 5),
        (7, 7),
    ],
)
def test_parse(text: str | int, value: Decimal | int) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize("text", ["", "1x", "Gi", "1 Gi", "1GiB", "--1", "1e", "0x10"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(quantity.QuantityError):
        quantity.parse(text)


def test_rounding_is_up() -> None:
    assert quantity.milli("0.0001") == 1
    assert quantity.milli("1.5") == 1500
    assert quantity.whole("100m") == 1


@given(st.integers(-(10**15), 10**15), st.booleans())
def test_render_is_exact(value: int, binary: bool) -> None:
    assert quantity.parse(quantity.render(value, binary=binary)) == value
