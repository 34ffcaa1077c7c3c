"""The metrics that CoreDNS's users have on their dashboards, under those names, where the meaning is the same.

Read from our own when somebody looks, so that nothing is counted twice. Left out is what we do not count: types and
response codes of compiled answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pilotage.dns import metrics


def _sum(metric: Counter | Gauge, **labels: str) -> float:
    """All samples with these labels."""
    return sum(
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created") and labels.items() <= sample.labels.items()
    )


class Familiar(Collector):
    """One family per familiar name."""

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        requests = CounterMetricFamily("coredns_dns_requests", "Queries by protocol.", labels=("proto",))
        for transport in ("udp", "tcp", "tls", "https"):
            requests.add_metric((transport,), _sum(metrics.QUERIES, transport=transport))
        yield requests
        for name, value in (
            ("coredns_cache_hits", _sum(metrics.CACHE, result="hit")),
            ("coredns_cache_misses", _sum(metrics.CACHE, result="miss")),
            ("coredns_cache_prefetch", _sum(metrics.CACHE_PREFETCH)),
            ("coredns_cache_served_stale", _sum(metrics.CACHE_STALE)),
            ("coredns_forward_max_concurrent_rejects", _sum(metrics.UPSTREAM_REJECTS)),
            ("coredns_proxy_healthcheck_failures", _sum(metrics.HEALTHCHECK_FAILURES)),
            ("coredns_reload_failed", _sum(metrics.RELOADS, result="refused")),
        ):
            yield CounterMetricFamily(name, f"As {name}_total of CoreDNS.", value=value)
        yield GaugeMetricFamily("coredns_cache_entries", "Answers kept.", value=_sum(metrics.CACHE_ENTRIES))


@lru_cache(maxsize=1)
def expose() -> None:
    """Add them to /metrics, once a process."""
    REGISTRY.register(Familiar())
