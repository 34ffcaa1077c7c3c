"""Generated questions, answered three times: compiled, computed, and read from an equivalent zone by dnspython.

`PILOTAGE_DIFFERENTIAL=50000` asks so many; the default keeps the suite quick. The seed is printed.
"""

from __future__ import annotations

import os
import random
import struct
from functools import cache

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone

from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import Rotation, parse_query
from pilotage.testing.dns import endpoint, part, reverse, service, table
from pilotage.testing.dns_oracle import ZONE, Expected, Line, Oracle, oracle

QUESTIONS = int(os.environ.get("PILOTAGE_DIFFERENTIAL", "15000"))
TYPES = ("A", "A", "AAAA", "AAAA", "SRV", "PTR", "TXT", "CNAME", "MX", "HTTPS")
NAMESPACES = ("default", "prod", "bare")


def cluster(dice: random.Random, size: int = 150) -> tuple[list[Service], list[EndpointSlice]]:
    services, slices = [], []
    for number in range(size):
        name, namespace = f"s{number}", dice.choice(NAMESPACES[:2])
        ports = [("http", 80), ("dns", 53, "UDP"), ("", 9)][: dice.randrange(4)]
        kind = dice.choice(["cluster", "cluster", "dual", "headless", "headless", "external", "none"])
        address = f"10.96.{number // 250}.{number % 250 + 1}"
        match kind:
            case "cluster" | "dual":
                more = [f"fd00:96::{number + 1:x}"] if kind == "dual" else []
                services.append(service(name, address, *more, ports=ports, namespace=namespace))
            case "external":
                target = dice.choice([f"s{dice.randrange(size)}.{namespace}.svc.cluster.local", "192.0.2.1"])
                services.append(service(name, external=target, namespace=namespace))
            case "headless":
                early = dice.random() < 0.3
                services.append(service(name, publish_not_ready=early, ports=ports, namespace=namespace))
        for index in range(dice.randrange(3)):
            family = dice.choice(["10.244.{}.{}", "fd00:244:{:x}::{:x}"])
            endpoints = [
                endpoint(
                    family.format(number % 250, index * 50 + i + 1),
                    dice.choice(["", "", f"h{i % 3}"]),
                    ready=dice.choice([True, True, None, False]),
                )
                for i in range(dice.randrange(5))
            ]
            slices.append(part(name, *endpoints, name=f"{name}-{index}", ports=ports, namespace=namespace))
    return services, slices


def names(dice: random.Random, true: Oracle) -> list[str]:
    """Names that exist, names beside and below them, names above them, search lists of outside names."""
    existing = sorted(name for name in true.existing if name.endswith("." + ZONE))
    found = [*existing, ZONE]
    found += [f"{dice.choice(['x', '*', '_http', '_tcp', '10-244-1-1', 'h0'])}.{name}" for name in existing]
    found += [name.partition(".")[2] for name in existing]
    found += [f"www.example.com.{name}" for name in (f"default.svc.{ZONE}", f"svc.{ZONE}", ZONE)]
    found += [owner for (owner, kind) in true.data if kind == "PTR"]
    found += [reverse(f"10.96.0.{i}") for i in range(0, 255, 7)]
    return found


def mixed_case(dice: random.Random, name: str) -> str:
    return "".join(c.upper() if dice.random() < 0.5 else c for c in name)


@cache
def type_number(rtype: str) -> int:
    return int(dns.rdatatype.from_text(rtype))


def question(dice: random.Random, name: str, rtype: str) -> bytes:
    edns = dice.random() < 0.5
    labels = b"".join(bytes((len(x),)) + x.encode() for x in name.removesuffix(".").split("."))
    head = struct.pack("!6H", dice.randrange(1 << 16), 0x0100, 1, 0, 0, int(edns))
    option = b"\0" + struct.pack("!HHIH", 41, dice.choice([512, 1232, 4096]), 0, 0) if edns else b""
    return head + labels + b"\0" + struct.pack("!HH", type_number(rtype), 1) + option


def section(rrsets: list[dns.rrset.RRset]) -> frozenset[Line]:
    return frozenset(
        (s.name.to_text().lower(), dns.rdatatype.to_text(s.rdtype), r.to_text().lower()) for s in rrsets for r in s
    )


def test_compiled_computed_and_stored_answers_are_the_same() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    services, slices = cluster(dice)
    made = table(*services, *slices, namespaces=NAMESPACES, pods="disabled")  # pod records are in no zone file
    true = oracle(services, slices, NAMESPACES)
    stored = dns.zone.from_text(true.zone_text(), ZONE, relativize=False, check_origin=False)
    candidates = names(dice, true)
    for _ in range(QUESTIONS):
        name, rtype = dice.choice(candidates), dice.choice(TYPES)
        data = question(dice, mixed_case(dice, name), rtype)
        computed = made.respond(data, parse_query(data))
        assert isinstance(computed, bytes), name
        check_compiled(made, data, computed)
        check_stored(stored, true, name, rtype, dns.message.from_wire(computed))


def check_compiled(made: Table, data: bytes, computed: bytes) -> None:
    """What the hot path would send for the lower-cased packet: the same bytes, but for case and whose turn it is."""
    kept = made.fast.get(data[2:].lower())
    if kept is None:
        return
    if isinstance(kept, Rotation):
        kept.position = 0
    assert (kept() if isinstance(kept, Rotation) else kept).lower() == computed[2:].lower()


def check_stored(stored: dns.zone.Zone, true: Oracle, name: str, rtype: str, got: dns.message.Message) -> None:
    expected = true.answer(name, rtype) if name != ZONE else apex(true)
    if got.rcode() == dns.rcode.NOERROR and name.endswith(ZONE) and name != ZONE and expected.answer:
        node = stored.get_node(dns.name.from_text(name))
        assert node is not None
        held = node.get_rdataset(1, dns.rdatatype.from_text(rtype)) or node.get_rdataset(1, dns.rdatatype.CNAME)
        assert held is not None
        assert {line[2] for line in expected.answer} >= {r.to_text().lower() for r in held}, (name, rtype)
    where = (name, rtype, got)
    assert dns.rcode.to_text(got.rcode()) == expected.rcode, where
    if got.flags & dns.flags.TC:
        assert section(got.answer) < expected.answer, where
    else:
        assert section(got.answer) == expected.answer, where
        offered = section(got.additional)
        assert offered <= expected.additional, where  # what does not fit is left out silently
    if name.endswith(ZONE) and not got.flags & dns.flags.TC:
        assert section(got.authority) == expected.authority, where


def apex(true: Oracle) -> Expected:
    return true._negative("NOERROR", "." + ZONE)
