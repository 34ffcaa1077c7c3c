"""Container logs as files of lines `<time> <stream> <P|F> <text>` (the CRI format).

Stands apart because the server, `previous` and termination messages read them. Pure: bytes in, lines out; tailing and
following are in `logs`. Source: "CRI: logging" (kubernetes/design-proposals-archive, kubelet-cri-logging).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pilotage.agent.core import timestamps


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One entry. `partial`: the text goes on in the next entry of the same stream."""

    time: str
    stream: str
    partial: bool
    text: bytes


def parse(raw: bytes) -> LogLine | None:
    """One line without its newline; None if it is not of the format (a torn write)."""
    parts = raw.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr") or parts[2][:1] not in (b"P", b"F"):
        return None
    return LogLine(
        time=parts[0].decode("ascii", "replace"),
        stream=parts[1].decode(),
        partial=parts[2][:1] == b"P",
        text=parts[3] if len(parts) == 4 else b"",
    )


def is_since(line: LogLine, since: float) -> bool:
    """Whether the line is not older than `since` (seconds since the epoch)."""
    try:
        return timestamps.from_text(line.time) >= since
    except ValueError:
        return True


class Renderer:
    """Entries → what the user sees: partial entries joined, one time stamp per whole line."""

    def __init__(self, *, with_time: bool) -> None:
        self._with_time = with_time
        self._open = {"stdout": False, "stderr": False}

    def render(self, line: LogLine) -> bytes:
        prefix = b"" if self._open[line.stream] or not self._with_time else _shown(line.time)
        self._open[line.stream] = line.partial
        return prefix + line.text + (b"" if line.partial else b"\n")


def _shown(time: str) -> bytes:
    """As kubectl's users know it: conmon writes the offset of UTC in full, Go writes Z (RFC 3339 §2)."""
    return (time[:-6] + "Z" if time.endswith("+00:00") else time).encode() + b" "


def tail(lines: Iterable[LogLine], count: int) -> Iterator[LogLine]:
    """The last `count` whole lines (with all their partial entries)."""
    kept: list[list[LogLine]] = []
    current: list[LogLine] = []
    for line in lines:
        current.append(line)
        if not line.partial:
            kept.append(current)
            current = []
            if len(kept) > count:
                kept.pop(0)
    if current and count:
        kept = [*kept, current][-count:]
    for group in kept[len(kept) - count :] if count < len(kept) else kept:
        yield from group
