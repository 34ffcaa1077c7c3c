"""The cluster that the DNS benchmark asks about: 10,000 Services, 100,000 endpoints, and questions to match.

Apart from `bench.dns`, which measures, because the same names go three ways: into an API server as objects, into
unbound as local data, and into dnsperf as questions.
"""

import asyncio
import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pilotage.api.core_v1 import Namespace, ObjectReference, Service, ServicePort, ServiceSpec
from pilotage.api.discovery_v1 import SERVICE_NAME_LABEL, Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.client import Client

ZONE = "cluster.local"
NAMESPACES = 20
ENDPOINTS = 10
HEADLESS_SHARE = 10  # every tenth Service has no address of its own
EXTERNAL_NAMES = 100
CREATES_AT_ONCE = 64
QUESTIONS = 20_000


@dataclass(frozen=True, slots=True)
class Made:
    """One Service as it came to be."""

    name: str
    namespace: str
    address: str  # empty: headless
    endpoints: tuple[str, ...]

    @property
    def dns_name(self) -> str:
        return f"{self.name}.{self.namespace}.svc.{ZONE}"


def is_headless(number: int) -> bool:
    return number % HEADLESS_SHARE == 0


def endpoint_addresses(number: int) -> tuple[str, ...]:
    first = int(ipaddress.IPv4Address("10.244.0.0")) + number * ENDPOINTS
    return tuple(str(ipaddress.IPv4Address(first + i)) for i in range(ENDPOINTS))


def service_of(number: int) -> Service:
    spec = ServiceSpec(
        cluster_ip="None" if is_headless(number) else "",
        selector={"app": f"svc-{number}"},
        ports=(ServicePort(name="http", port=80),),
    )
    return Service(metadata=ObjectMeta(name=f"svc-{number}", namespace=f"team-{number % NAMESPACES}"), spec=spec)


def slice_of(number: int, addresses: tuple[str, ...] = ()) -> EndpointSlice:
    """As the controller writes it: every field that real slices have."""
    namespace = f"team-{number % NAMESPACES}"
    found = addresses or endpoint_addresses(number)
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"svc-{number}-x7k2p", namespace=namespace, labels={SERVICE_NAME_LABEL: f"svc-{number}"}
        ),
        address_type="IPv4",
        endpoints=tuple(
            Endpoint(
                addresses=(address,),
                conditions=EndpointConditions(ready=True, serving=True, terminating=False),
                node_name=f"node-{i}",
                zone=f"zone-{i % 3}",
                target_ref=ObjectReference(
                    kind="Pod", namespace=namespace, name=f"svc-{number}-5d9c7b-{i:05}", uid=f"{number:08x}-{i:04x}"
                ),
            )
            for i, address in enumerate(found)
        ),
        ports=(EndpointPort(name="http", port=8080),),
    )


async def create(client: Client, services: int) -> list[Made]:
    """All of it, through the API."""
    for number in range(NAMESPACES):
        await client.create(Namespace(metadata=ObjectMeta(name=f"team-{number}")))
    turns = asyncio.Semaphore(CREATES_AT_ONCE)

    async def one(number: int) -> Made:
        async with turns:
            made = await client.create(service_of(number))
            await client.create(slice_of(number))
        address = "" if is_headless(number) else made.spec.cluster_ip
        return Made(made.metadata.name, made.metadata.namespace, address, endpoint_addresses(number))

    return [*await asyncio.gather(*(one(number) for number in range(services)))]


def mixes(services: list[Made]) -> dict[str, list[str]]:
    """Lines for dnsperf: `name type`. The same seed for every run."""
    dice = random.Random(7)  # noqa: S311 - which names are asked
    addressed = [made for made in services if made.address]
    headless = [made for made in services if not made.address]
    searched = []
    for number in range(EXTERNAL_NAMES):
        for suffix in (f".team-{number % NAMESPACES}.svc.{ZONE}", f".svc.{ZONE}", f".{ZONE}", ""):
            searched += [f"www{number}.example.com{suffix} {rtype}" for rtype in ("A", "AAAA")]
    picked = [dice.choice(addressed) for _ in range(QUESTIONS)]
    return {
        "Service A": [f"{made.dns_name} A" for made in picked],
        "A + AAAA pairs": [f"{made.dns_name} {rtype}" for made in picked[::2] for rtype in ("A", "AAAA")],
        "search list of an external name": searched,
        f"headless with {ENDPOINTS} addresses": [f"{dice.choice(headless).dns_name} A" for _ in range(QUESTIONS)],
        "SRV": [f"_http._tcp.{made.dns_name} SRV" for made in picked],
        "PTR": [f"{ipaddress.ip_address(made.address).reverse_pointer} PTR" for made in picked],
    }


def local_data(services: list[Made]) -> Iterator[str]:
    """The same records, as unbound's configuration."""
    yield f'local-zone: "{ZONE}." static'
    yield 'local-zone: "10.in-addr.arpa." static'
    yield f'local-data: "{ZONE}. 5 IN SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 5"'
    for number in range(NAMESPACES):
        yield f'local-data: "keep.team-{number}.svc.{ZONE}. 5 IN TXT keep"'
    for made in services:
        for address in [made.address] if made.address else made.endpoints:
            yield f'local-data: "{made.dns_name}. 5 IN A {address}"'
        if made.address:
            yield f'local-data: "_http._tcp.{made.dns_name}. 5 IN SRV 0 100 80 {made.dns_name}."'
            yield f'local-data-ptr: "{made.address} 5 {made.dns_name}."'


def external_data() -> Iterator[str]:
    """What the outside world knows."""
    yield 'local-zone: "example.com." static'
    yield 'local-data: "example.com. 60 IN SOA ns.example.com. hostmaster.example.com. 1 7200 1800 86400 60"'
    for number in range(EXTERNAL_NAMES):
        yield f'local-data: "www{number}.example.com. 60 IN A 192.0.2.{number % 250 + 1}"'


def write_unbound(path: Path, port: int, lines: Iterator[str]) -> None:
    """One thread, no logging, nothing but these names."""
    head = f"""server:
  directory: "{path.parent}"
  pidfile: ""
  chroot: ""
  username: ""
  use-syslog: no
  verbosity: 0
  do-daemonize: no
  num-threads: 1
  interface: 127.0.0.1
  port: {port}
  access-control: 127.0.0.0/8 allow
  module-config: "iterator"
"""
    path.write_text(head + "".join(f"  {line}\n" for line in lines) + "remote-control:\n  control-enable: no\n")
