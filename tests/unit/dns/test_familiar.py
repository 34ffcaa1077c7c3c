"""Metrics under the names that dashboards for CoreDNS ask for."""

from __future__ import annotations

from prometheus_client import generate_latest

from pilotage.dns import metrics
from pilotage.dns.familiar import Familiar, expose


def test_familiar_names_say_what_ours_say() -> None:
    def value(name: str) -> float:
        found = [s.value for f in Familiar().collect() for s in f.samples if s.name == name]
        return found[0]

    before = value("coredns_cache_hits_total")
    metrics.CACHE.labels("hit").inc(3)
    metrics.CACHE.labels("miss").inc(5)
    assert value("coredns_cache_hits_total") == before + 3
    expose()
    expose()
    assert b"coredns_reload_failed_total" in generate_latest()
