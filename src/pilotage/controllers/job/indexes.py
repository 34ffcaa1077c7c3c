"""Sets of completion indexes and the text that the status keeps them in."""

from collections.abc import Iterable

from pilotage.api.core_v1 import Pod

INDEX = "batch.kubernetes.io/job-completion-index"


def parse_indexes(text: str) -> set[int]:
    """`0,2-4` → {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def render_indexes(indexes: Iterable[int]) -> str:
    """{0, 2, 3, 4} → `0,2-4`."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def index_of(pod: Pod) -> int | None:
    """None for a pod that has none."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdigit() else None
