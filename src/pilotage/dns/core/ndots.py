"""Who pays for `ndots:5`: pods whose resolver asks the whole search list before the name itself.

With the cluster's default resolv.conf every external name of fewer than five dots costs one question for each search
domain and each address family before the one that counts. What fixes it is a `dnsConfig` in the pod's template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilotage.dns.core.name import Name, from_text, is_within

NDOTS_DEFAULT = 5
SEARCH_DOMAINS = 3
"""Of the cluster: NAMESPACE.svc.ZONE, svc.ZONE, ZONE; the node's own come on top."""
NDOTS_FIXED = 2
"""Names of Services (`api`, `api.shop`) still go through the search list first; `api.example.com` does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What matters of one pod."""

    namespace: str
    owner: str
    """`Kind/name` of what made it, or the pod itself."""
    dns_policy: str = "ClusterFirst"
    ndots: str = ""
    """The option's value; empty when it is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One workload that pays."""

    namespace: str
    workload: str
    pods: int
    ndots: int
    wasted: int | None = None
    """Questions of the log that only the search list asked; None without a log. Of the whole namespace."""
    extra_per_name: int = 2 * SEARCH_DOMAINS
    """Questions for one external name beyond the two that are needed (A and AAAA)."""
    fix: Mapping[str, object] = field(
        default_factory=lambda: {"dnsConfig": {"options": [{"name": "ndots", "value": str(NDOTS_FIXED)}]}}
    )


def report(pods: Iterable[PodFacts], wasted: Mapping[str, int] | None = None) -> list[Row]:
    """The workloads that pay, those of the most costly namespaces first."""
    found: Counter[tuple[str, str, int]] = Counter()
    for pod in pods:
        ndots = int(pod.ndots) if pod.ndots.isdecimal() else NDOTS_DEFAULT
        if pod.dns_policy in ("ClusterFirst", "ClusterFirstWithHostNet") and ndots > NDOTS_FIXED:
            found[(pod.namespace, pod.owner, ndots)] += 1
    rows = [
        Row(
            namespace=namespace,
            workload=owner,
            pods=count,
            ndots=ndots,
            wasted=None if wasted is None else wasted.get(namespace, 0),
        )
        for (namespace, owner, ndots), count in found.items()
    ]
    return sorted(rows, key=lambda row: (-(row.wasted or 0), -row.pods, row.namespace, row.workload))


def wasted_questions(events: Iterable[Mapping[str, object]], zone: Name) -> Counter[str]:
    """Per namespace, the NXDOMAINs of names such as `www.example.com.NAMESPACE.svc.ZONE` in a log of JSON events."""
    counts: Counter[str] = Counter()
    for event in events:
        if event.get("rcode") != "NXDOMAIN":
            continue
        try:
            name = from_text(str(event.get("name", "")))
        except ValueError:
            continue
        relative = name[: len(name) - len(zone)]
        if is_within(name, zone) and len(relative) >= 4 and relative[-1] == b"svc":
            counts[relative[-2].decode("latin-1")] += 1
    return counts
