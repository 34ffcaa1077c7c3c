"""External DNS: hostnames of Services, Ingresses and Gateways on an authoritative server.

Purpose: Whoever publishes a hostname in the cluster gets it in the zone of the enterprise, without a ticket.

Inputs → outputs: Services, Ingresses and (whenever the API has them) Gateways and HTTP, gRPC and TLS routes; the zone
as the server transfers it (AXFR) → dynamic updates (RFC 2136), signed (TSIG, RFC 8945).

Invariants: Nothing is withdrawn before everything is read. Only names with an ownership record (TXT) of this owner are
ever changed or deleted; a name of anybody else is left alone and said. Each change is one update whose prerequisites
the server checks, so two publishers cannot overwrite each other. The server's zone is the state: there is no other
memory.

Reading order: `core.annotations`, `core.wanted`, `core.gateways`, `core.plan`, `gateways`, `server`, `publisher`.
"""

from pilotage.dns.external.publisher import Config, run
from pilotage.dns.external.server import parse_key

__all__ = ["Config", "parse_key", "run"]
