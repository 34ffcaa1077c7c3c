"""Every metric of the DNS server."""

from pilotage.telemetry import counter, gauge, histogram

QUERIES = counter(
    "pilotage_dns_queries_total",
    "Queries by transport and by who answered: fast (compiled before), cluster (compiled now), upstream, refused.",
    ("transport", "by"),
)
DROPPED = counter("pilotage_dns_dropped_total", "Packets that were no query, and replies that could not be sent.")
RESPONSES = counter("pilotage_dns_slow_responses_total", "Answers outside the fast path by response code.", ("rcode",))
CACHE = counter("pilotage_dns_cache_lookups_total", "Lookups of upstream answers: hit, miss, shared.", ("result",))
UPSTREAM_SECONDS = histogram(
    "pilotage_dns_upstream_seconds", "Time of one attempt at one upstream.", ("upstream", "result")
)
SERVICES = gauge("pilotage_dns_services_count", "Services in the table.")
ADDRESSES = gauge("pilotage_dns_addresses_count", "Endpoint addresses in the table.")
COMPILED = gauge("pilotage_dns_compiled_answers_count", "Answers compiled for the fast path.")
CHANGES = counter("pilotage_dns_changes_total", "Changes applied to the table.", ("kind",))
CONNECTIONS = gauge("pilotage_dns_stream_connections_count", "Open TCP connections.")
