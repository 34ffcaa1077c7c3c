"""Configuration: what is refused, and how addresses are read."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.dns import Config
from pilotage.dns.chain.exchange import Address, parse_address
from pilotage.dns.config import find_upstreams
from pilotage.dns.publish import own_slices
from pilotage.kit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", Address("10.0.0.1", 53)),
        ("10.0.0.1:5353", Address("10.0.0.1", 5353)),
        ("::1", Address("::1", 53)),
        ("[::1]:5353", Address("::1", 5353)),
        ("[::1]", Address("::1", 53)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:70000", "1.2.3", "[::1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"listen": ()}, id="nothing to listen on"),
        pytest.param({"upstreams": ("dns.google",)}, id="upstream by name"),
        pytest.param({"upstreams": tuple(f"10.0.0.{i}" for i in range(9))}, id="too many upstreams"),
        pytest.param({"ttl_s": 3601}, id="TTL too long"),
        pytest.param({"ttl_s": -1}, id="TTL negative"),
        pytest.param({"pods": "maybe"}, id="unknown pod mode"),
        pytest.param({"zone": "."}, id="the root as zone"),
        pytest.param({"zone": "a..b"}, id="zone that is no name"),
        pytest.param({"reverse_cidrs": ("10.0.0.0/33",)}, id="range that is none"),
        pytest.param({"publish_service": "kube-dns"}, id="Service without namespace"),
    ],
)
def test_wrong_configuration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Config(**{"listen": ("127.0.0.1",), **options}).check()


def test_this_server_is_never_its_own_upstream() -> None:
    config = Config(listen=("10.89.0.11",), upstreams=("10.89.0.11:53", "10.89.0.1", "10.89.0.1:53"))
    assert find_upstreams(config) == (Address("10.89.0.1", 53),)


def test_an_unreadable_resolv_conf_is_said_so() -> None:
    with pytest.raises(UsageError, match="No such file"):
        find_upstreams(Config(listen=("127.0.0.1",), resolv_conf="/nonexistent"))


def test_one_slice_per_family_and_no_wildcards() -> None:
    addresses = [Address("0.0.0.0", 53), Address("10.89.0.11", 53), Address("fd00::11", 53), Address("10.0.0.1", 53)]
    slices = own_slices("kube-system/kube-dns", "n1", addresses)
    assert [(s.metadata.name, s.address_type, s.endpoints[0].addresses) for s in slices] == [
        ("kube-dns-n1", "IPv4", ("10.89.0.11",)),
        ("kube-dns-n1-ipv6", "IPv6", ("fd00::11",)),
    ]
