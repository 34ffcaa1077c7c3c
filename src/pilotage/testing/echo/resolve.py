"""Asking DNS as a pod does: the servers, search list and ndots of its own resolv.conf, every step shown.

Written out rather than left to getaddrinfo, because the point is to show which names were asked and what came back.
Called by `pilotage-echo resolve`. dnspython is imported only here.
"""

from __future__ import annotations

from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from pilotage.testing.echo.identity import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """One question of `pilotage-echo resolve`."""

    name: str
    record_type: str = "A"
    resolv_conf: str = "/etc/resolv.conf"
    server: str = ""
    """Ask this server instead of the file's."""
    port: int = 53
    tcp: bool = False
    timeout_s: float = 2.0


def candidates(name: str, search: tuple[str, ...], ndots: int) -> tuple[str, ...]:
    """The absolute names to ask, in the order of resolv.conf(5): as it is first if it has `ndots` dots, else last."""
    if name.endswith("."):
        return (name,)
    searched = tuple(f"{name}.{domain.rstrip('.')}." for domain in search if domain.rstrip("."))
    absolute = (f"{name}.",)
    return absolute + searched if name.count(".") >= ndots else searched + absolute


async def resolve(request: Resolution) -> Json:
    """Ask until one name has records of the type; the outcome has each question `asked`, `records` or an `error`."""
    outcome: Json = {"name": request.name, "type": request.record_type}
    try:
        record_type = dns.rdatatype.from_text(request.record_type)
        configuration = dns.resolver.Resolver(configure=False)
        configuration.read_resolv_conf(request.resolv_conf)
    except (dns.exception.DNSException, ValueError, OSError) as error:
        return outcome | {"error": f"{type(error).__name__}: {error}"}
    servers = [request.server] if request.server else [str(server) for server in configuration.nameservers]
    search = tuple(str(domain) for domain in configuration.search)
    ndots = 1 if configuration.ndots is None else configuration.ndots
    outcome |= {"servers": servers, "search": list(search), "ndots": ndots}
    asked: list[Json] = []
    outcome["asked"] = asked
    for name in candidates(request.name, search, ndots):
        response, step = await _ask(request, name, record_type, servers)
        asked.append(step)
        if response is None:
            continue
        records = [
            {"name": str(rrset.name), "type": dns.rdatatype.to_text(rrset.rdtype), "ttl": rrset.ttl, "data": str(rdata)}
            for rrset in response.answer
            for rdata in rrset
        ]
        wanted = [r for r in records if record_type == dns.rdatatype.ANY or r["type"] == request.record_type.upper()]
        if wanted:
            return outcome | {"canonical_name": wanted[0]["name"], "records": records}
    return outcome | {"error": "no name has such records"}


async def _ask(
    request: Resolution, name: str, record_type: dns.rdatatype.RdataType, servers: list[str]
) -> tuple[dns.message.Message | None, Json]:
    """One question to the first server that answers it."""
    step: Json = {"name": name}
    try:
        query = dns.message.make_query(name, record_type, use_edns=0)
    except dns.exception.DNSException as error:
        return None, step | {"error": str(error)}
    for server in servers:
        try:
            if request.tcp:
                response = await dns.asyncquery.tcp(query, server, timeout=request.timeout_s, port=request.port)
            else:
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, server, timeout=request.timeout_s, port=request.port
                )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            step |= {"server": server, "error": f"{type(error).__name__}: {error}"[:300]}
            continue
        flags = dns.flags.to_text(response.flags)
        answered: Json = {"name": name, "server": server, "rcode": dns.rcode.to_text(response.rcode()), "flags": flags}
        return response, answered | {"answers": sum(len(rrset) for rrset in response.answer)}
    return None, step
