"""What was seen to pass: requests counted by edge and by answering pod.

Fed with the answers of the echo servers, which name the pod that answered and nest the answers it waited for itself
(`upstreams`). Real counts only: an answer that never came is not on the picture.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

OUTSIDE = "outside"


class Traffic:
    """Counters that `record` fills."""

    def __init__(self, services: Collection[str] = ()) -> None:
        """`services`: the names that a URL's host may mean."""
        self.services = frozenset(services)
        self.edges: Counter[tuple[str, str]] = Counter()  # (vertex id, vertex id)
        self.pods: Counter[tuple[str, str]] = Counter()  # (service, pod)

    def record(self, answer: Mapping[str, Any], *path: str, count: int = 1) -> None:
        """Count one answer that came along `path`: vertex ids from the caller to the Service that was asked."""
        for source, target in pairwise(path):
            self.edges[source, target] += count
        who = answer.get("answered_by")
        if not isinstance(who, Mapping):
            return
        service = path[-1].partition("/")[2]
        if path[-1].startswith("service/") and isinstance(who.get("pod"), str):
            self.pods[service, who["pod"]] += count
        for outcome in answer.get("upstreams") or ():
            target = self.service_of(outcome.get("url", ""))
            below = outcome.get("answer")
            if target and isinstance(below, Mapping):
                self.record(below, path[-1], f"service/{target}", count=count)

    def record_spread(self, pods: Mapping[str, int], *path: str) -> None:
        """Count a summary: how many answers each pod gave."""
        for pod, count in pods.items():
            self.record({"answered_by": {"pod": pod}}, *path, count=count)

    def service_of(self, url: str) -> str:
        """The Service a URL speaks to: `http://api/` → api, `tcp://db-0.db:5432` → db; empty when none of ours."""
        host = urlsplit(url).hostname or ""
        return next((label for label in host.split(".")[:2] if label in self.services), "")
