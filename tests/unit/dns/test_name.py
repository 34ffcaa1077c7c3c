"""Names and the labels made of addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.dns.core.name import (
    dashed,
    from_text,
    pack_address,
    reverse_name,
    reverse_zones,
    reversed_address,
    to_text,
    undashed,
)

ADDRESSES = st.ip_addresses()


@given(ADDRESSES)
def test_addresses_pack_as_the_standard_library_packs(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert pack_address(str(address)) == address.packed


@given(st.text(max_size=20))
def test_what_is_no_address_is_none(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text).packed
    except ValueError:
        expected = None
    if "%" not in text:  # a zone id belongs to sockets, not to addresses
        assert pack_address(text) == expected


@given(ADDRESSES)
def test_a_dashed_label_reads_back_and_is_a_host_name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    label = dashed(str(address))
    assert undashed(label) == address.packed
    assert not label.endswith(b"-")


@given(ADDRESSES)
def test_reverse_names_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    name = reverse_name(address.packed)
    assert to_text(name) == address.reverse_pointer + "."
    assert reversed_address(name) == address.packed


@pytest.mark.parametrize(
    "text",
    ["1.2.3.in-addr.arpa", "01.2.3.4.in-addr.arpa", "256.2.3.4.in-addr.arpa", "x.2.3.4.in-addr.arpa", "1.ip6.arpa"],
)
def test_other_names_stand_for_no_address(text: str) -> None:
    assert reversed_address(from_text(text)) is None


@pytest.mark.parametrize(
    ("cidr", "zones"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa."]),
        ("10.96.0.0/16", ["96.10.in-addr.arpa."]),
        ("10.96.0.0/15", ["96.10.in-addr.arpa.", "97.10.in-addr.arpa."]),
        ("10.89.0.11/32", ["11.0.89.10.in-addr.arpa."]),
        ("fd00:96::/32", ["6.9.0.0.0.0.d.f.ip6.arpa."]),
    ],
)
def test_ranges_become_reverse_zones_at_whole_labels(cidr: str, zones: list[str]) -> None:
    assert [to_text(zone) for zone in reverse_zones(cidr)] == zones


@pytest.mark.parametrize("text", ["a..b", "a" * 64, ".".join(["a" * 60] * 5), "ünicode"])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text)
