"""A measured figure and its line of JSON."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Something comparable, measured in the same run."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Samples of one quantity."""

    name: str
    unit: str
    values: Sequence[float]
    peer: Peer | None = None
    bound: float | None = None  # the median must not exceed it
    at_least: float | None = None  # the median must not fall below it
    note: str = ""

    def line(self) -> str:
        row: dict[str, object] = {"figure": self.name, "unit": self.unit, **_spread(self.values)}
        if self.bound is not None:
            row |= {"bound": self.bound, "holds": statistics.median(self.values) <= self.bound}
        if self.at_least is not None:
            row |= {"at_least": self.at_least, "holds": statistics.median(self.values) >= self.at_least}
        if self.peer is not None:
            row["peer"] = {"name": self.peer.name, **_spread(self.peer.values)}
        if self.note:
            row["note"] = self.note
        return json.dumps(row)


def _spread(values: Sequence[float]) -> dict[str, float | int]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 6),
        "min": round(ordered[0], 6),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 6),
        "max": round(ordered[-1], 6),
        "runs": len(ordered),
    }


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
