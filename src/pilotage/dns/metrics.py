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
CACHE_ENTRIES = gauge("pilotage_dns_cache_entries_count", "Upstream answers kept.")
CACHE_PREFETCH = counter("pilotage_dns_cache_prefetch_total", "Answers fetched again before they lapsed.")
CACHE_STALE = counter("pilotage_dns_cache_served_stale_total", "Lapsed answers given because no upstream answered.")
UPSTREAM_REJECTS = counter("pilotage_dns_upstream_rejects_total", "Questions beyond concurrent_max.")
HEALTHCHECK_FAILURES = counter(
    "pilotage_dns_upstream_healthcheck_failures_total", "Resting upstreams that did not answer.", ("upstream",)
)
RELOADS = counter("pilotage_dns_reloads_total", "Changes of the configuration file: applied, refused.", ("result",))
GUARDED = counter("pilotage_dns_guarded_total", "Packets not served, by guard: acl, ratelimit.", ("guard",))
SNAPSHOT_SECONDS = histogram("pilotage_dns_snapshot_seconds", "Time to write the last good view.")
STALE_VIEW = gauge("pilotage_dns_stale_view_count", "1 while the view comes from a file, the API being away.")
SERVICES = gauge("pilotage_dns_services_count", "Services in the table.")
ADDRESSES = gauge("pilotage_dns_addresses_count", "Endpoint addresses in the table.")
COMPILED = gauge("pilotage_dns_compiled_answers_count", "Answers compiled for the fast path.")
CHANGES = counter("pilotage_dns_changes_total", "Changes applied to the table.", ("kind",))
CONNECTIONS = gauge("pilotage_dns_stream_connections_count", "Open TCP connections.")
