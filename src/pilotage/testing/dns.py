"""Short constructors for the objects that DNS reads, and for what it answers.

Part of the shipped kit, because both the pure tests and those with sockets use them. `table` is the pure server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import dns.message
import dns.rcode
import dns.rdatatype

from pilotage.api.core_v1 import Service, ServicePort, ServiceSpec
from pilotage.api.discovery_v1 import (
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pilotage.api.meta_v1 import ObjectMeta
from pilotage.dns.core.name import from_text, reverse_zones
from pilotage.dns.core.records import ZoneSettings
from pilotage.dns.core.table import Table
from pilotage.dns.core.wire import parse_query

ZONE = "cluster.local"


def settings(**changes: object) -> ZoneSettings:
    values: dict[str, object] = {"zone": from_text(ZONE), "reverse_zones": reverse_zones("10.96.0.0/16")}
    return ZoneSettings(**{**values, **changes})  # type: ignore[arg-type]


def service(
    name: str,
    *addresses: str,
    ports: Iterable[tuple[str, int] | tuple[str, int, str]] = (("http", 80),),
    namespace: str = "default",
    external: str = "",
    publish_not_ready: bool = False,
) -> Service:
    """A ClusterIP Service with `addresses`, headless without any, ExternalName with `external`."""
    spec = ServiceSpec(
        type="ExternalName" if external else "ClusterIP",
        cluster_ip="" if external else (addresses[0] if addresses else "None"),
        cluster_ips=addresses,
        external_name=external,
        publish_not_ready_addresses=publish_not_ready,
        ports=tuple(ServicePort(name=p[0], port=p[1], protocol=p[2] if len(p) > 2 else "TCP") for p in ports),
    )
    return Service(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


def endpoint(address: str, hostname: str = "", *, ready: bool | None = True) -> Endpoint:
    return Endpoint(addresses=(address,), hostname=hostname, conditions=EndpointConditions(ready=ready))


def part(
    of: str,
    *endpoints: Endpoint | str,
    name: str = "",
    ports: Iterable[tuple[str, int] | tuple[str, int, str]] = (("http", 8080),),
    namespace: str = "default",
) -> EndpointSlice:
    """A slice of the Service `of`."""
    found = tuple(endpoint(e) if isinstance(e, str) else e for e in endpoints)
    version = 6 if found and ":" in found[0].addresses[0] else 4
    return EndpointSlice(
        metadata=ObjectMeta(name=name or f"{of}-{version}", namespace=namespace, labels={SERVICE_NAME_LABEL: of}),
        address_type=f"IPv{version}",
        endpoints=found,
        ports=tuple(EndpointPort(name=p[0], port=p[1], protocol=p[2] if len(p) > 2 else "TCP") for p in ports),
    )


def table(*objects: Service | EndpointSlice, namespaces: Iterable[str] = ("default",), **changes: object) -> Table:
    made = Table(settings(**changes), recursion=True)
    fill(made, objects, namespaces)
    return made


def fill(made: Table, objects: Iterable[Service | EndpointSlice], namespaces: Iterable[str] = ("default",)) -> None:
    for namespace in namespaces:
        made.set_namespace(namespace, exists=True)
    for item in objects:
        if isinstance(item, Service):
            made.set_service(None, item)
        else:
            made.set_slice(None, item)
    made.synced = True


def ask(made: Table, name: str, rtype: str = "A", **options: object) -> dns.message.Message:
    """What `made` answers by UDP, as dnspython reads it; names without a final dot are below the zone."""
    full = name if name.endswith(".") else f"{name}.{ZONE}." if name else f"{ZONE}."
    query = dns.message.make_query(full, rtype, **options)  # type: ignore[arg-type]
    data = query.to_wire()
    reply = made.respond(data, parse_query(data))
    assert isinstance(reply, bytes), f"{full} {rtype} is not answered by the table: {reply}"
    response = dns.message.from_wire(reply)
    assert response.id == query.id
    assert response.question == query.question
    return response


def summary(response: dns.message.Message) -> tuple[str, list[str]]:
    """The response code, or NODATA; and the answers as sorted text without owner and TTL."""
    answers = sorted(f"{dns.rdatatype.to_text(s.rdtype)} {r}" for s in response.answer for r in s)
    code = dns.rcode.to_text(response.rcode())
    return ("NODATA" if code == "NOERROR" and not answers else code), answers


def reverse(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer + "."
