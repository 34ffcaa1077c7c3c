"""The conventional layout of a service proxy in nftables, as a peer: a chain per Service and a chain per endpoint.

It does the same for a packet as far as cluster IPs go: a verdict map leads to the Service's chain, which draws a number
and goes to an endpoint's chain, which masquerades hairpins by a mark and translates. Text for `nft -f`.
"""

from collections.abc import Callable, Iterator


def ruleset(services: int, endpoints: int, vip: Callable[[int], str], endpoint: Callable[[int], str]) -> Iterator[str]:
    """Lines of one transaction; `vip` and `endpoint` give addresses by number."""
    yield "add table ip conventional"
    yield "add map ip conventional service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }"
    yield "add chain ip conventional mark-for-masquerade"
    yield "add rule ip conventional mark-for-masquerade meta mark set meta mark or 0x4000"
    yield "add chain ip conventional services"
    yield "add rule ip conventional services ip daddr . meta l4proto . th dport vmap @service-ips"
    for hook in ("prerouting", "output"):
        yield f"add chain ip conventional nat-{hook} {{ type nat hook {hook} priority -100; }}"
        yield f"add rule ip conventional nat-{hook} jump services"
    yield "add chain ip conventional nat-postrouting { type nat hook postrouting priority 100; }"
    yield (
        "add rule ip conventional nat-postrouting meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 "
        "masquerade fully-random"
    )
    for number in range(services):
        for index in range(endpoints):
            address, chain = endpoint(number * endpoints + index), f"endpoint-{number}-{index}"
            yield f"add chain ip conventional {chain}"
            yield f"add rule ip conventional {chain} ip saddr {address} jump mark-for-masquerade"
            yield f"add rule ip conventional {chain} meta l4proto tcp dnat to {address}:8080"
        targets = ", ".join(f"{index} : goto endpoint-{number}-{index}" for index in range(endpoints))
        yield f"add chain ip conventional service-{number}"
        yield f"add rule ip conventional service-{number} numgen random mod {endpoints} vmap {{ {targets} }}"
        yield f"add element ip conventional service-ips {{ {vip(number)} . tcp . 80 : goto service-{number} }}"
