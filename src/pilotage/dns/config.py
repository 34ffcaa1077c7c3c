"""What the DNS server is told at its start; what it may be told anew while it runs is in `chain.build`'s file."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pilotage.dns.chain.exchange import Address, parse_address, read_nameservers
from pilotage.kit.errors import UsageError

__all__ = ["Config", "find_upstreams", "parse_address"]

UPSTREAMS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Addresses are `ADDRESS:PORT`, IPv6 in brackets; the port may be left out and is then 53."""

    listen: tuple[str, ...]
    """Port 0 takes any free one (the same for UDP and TCP)."""
    listen_tls: tuple[str, ...] = ()
    """DNS over TLS (RFC 7858); the port may be left out and is then 853."""
    listen_https: tuple[str, ...] = ()
    """DNS over HTTPS (RFC 8484) at /dns-query; the port may be left out and is then 443."""
    certificate: str = ""
    """PEM file of the certificate chain for both; looked at again when it changes."""
    key: str = ""
    """PEM file of its private key."""
    transfer_to: tuple[str, ...] = ()
    """Addresses and CIDR ranges that may copy the zone (AXFR, IXFR); empty: none."""
    reuse_port: bool = False
    """Share the ports with other processes, between which the kernel spreads clients (SO_REUSEPORT)."""
    worker: int = 0
    """Which of the processes that share a node this is: each states a watermark of its own, from 1 on as `dns-N`."""
    cluster_set_zone: str = "clusterset.local"
    """The zone of imported Services (KEP-1645), once the cluster knows the kind ServiceImport; empty: none."""
    zone: str = "cluster.local"
    reverse_cidrs: tuple[str, ...] = ()
    """Service and pod ranges: unknown addresses in them are NXDOMAIN here and never asked of upstreams."""
    upstreams: tuple[str, ...] = ()
    resolv_conf: str = ""
    """A file whose nameservers are the upstreams when none are given; empty: none, other names are REFUSED."""
    ttl_s: int = 5
    pods: str = "insecure"
    """Pod records: disabled, insecure or verified."""
    node: str = ""
    """This node's name, for the watermark and the slice."""
    publish_service: str = ""
    """`namespace/name` of the Service without selector into which this process puts itself; empty: none."""
    advertise: tuple[str, ...] = ()
    """Addresses to put there, without port; empty: those listened on, wildcards left out."""
    dns_service: str = "kube-system/kube-dns"
    """The Service named in NS records."""
    health: str = ""
    """`ADDRESS:PORT` of /metrics, /livez and /readyz; empty: none."""
    cache_entries_max: int = 10_000
    """Upstream answers kept, about 1 kB each."""
    upstream_timeout_s: float = 2.0
    """For one attempt at one upstream."""
    config_file: str = ""
    """The chain of plugins, instead of `upstreams` and `resolv_conf`; read again when it changes. Empty: none."""
    snapshot_file: str = ""
    """Where the last good view of the cluster is kept for a start without the API; empty: nowhere."""
    handover: str = ""
    """A Unix socket by which the next process takes over the sockets of this one; empty: no handover."""

    def check(self) -> None:
        """Raises `UsageError` with the field and what is wrong with it."""
        from pilotage.dns.core.name import from_text, reverse_zones

        if not self.listen:
            raise UsageError("listen: at least one ADDRESS:PORT")
        for text in (*self.listen, *self.upstreams, *([self.health] if self.health else [])):
            parse_address(text)
        for text in (*self.advertise, *self.listen_tls, *self.listen_https):
            parse_address(text)
        if (self.listen_tls or self.listen_https) and not (self.certificate and self.key):
            raise UsageError("certificate and key: DNS over TLS and HTTPS need both")
        for text in self.transfer_to:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise UsageError(f"transfer_to: {text!r} is neither an address nor a range") from error
        if len(self.upstreams) > UPSTREAMS_MAX:
            raise UsageError(f"upstreams: at most {UPSTREAMS_MAX}")
        if not 0 <= self.ttl_s <= 3600:
            raise UsageError(f"ttl: {self.ttl_s} is not between 0 and 3600 seconds")
        if self.pods not in ("disabled", "insecure", "verified"):
            raise UsageError(f"pods: {self.pods!r} is not disabled, insecure or verified")
        for field, text in (("dns_service", self.dns_service), ("publish_service", self.publish_service)):
            if text and text.count("/") != 1:
                raise UsageError(f"{field}: {text!r} is not NAMESPACE/NAME")
        try:
            if not from_text(self.zone):
                raise ValueError("the root cannot be the cluster's zone")
            from_text(self.cluster_set_zone)
            for cidr in self.reverse_cidrs:
                reverse_zones(cidr)
        except ValueError as error:
            raise UsageError(f"zone or reverse_cidrs: {error}") from error


def find_upstreams(config: Config) -> tuple[Address, ...]:
    """The upstreams given, or those of the file; never this server itself, which would ask itself for ever."""
    if config.upstreams:
        found = [parse_address(text) for text in config.upstreams]
    elif config.resolv_conf:
        found = list(read_nameservers(config.resolv_conf))
    else:
        found = []
    own = {parse_address(text) for text in config.listen}
    return tuple(address for address in dict.fromkeys(found) if address not in own)[:UPSTREAMS_MAX]
