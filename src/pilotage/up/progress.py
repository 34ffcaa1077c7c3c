"""What a start tells whoever waits for it.

Apart from the supervisor because the watcher may be a terminal, a file, or another process (`up --detach`). Called by
the supervisor; printers live in the command line.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Follows one start from its first step to ready or failed."""

    def step(self, text: str) -> None:
        """Something is done: "fabric", "n1 Ready"."""
        ...

    def ready(self, summary: Mapping[str, str]) -> None:
        """The cluster is up; `summary` says how to reach it."""
        ...

    def failed(self, text: str) -> None:
        """It will not come up; `text` is one line that says why and what to do."""
        ...


class PipeReporter:
    """A Reporter that writes one JSON object a line to a pipe, for the process that started us."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def step(self, text: str) -> None:
        self._write({"step": text})

    def ready(self, summary: Mapping[str, str]) -> None:
        self._write({"ready": dict(summary)})
        self._close()

    def failed(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")  # our log: after the start nobody listens
        self._write({"failed": text})
        self._close()

    def _write(self, message: Mapping[str, object]) -> None:
        try:
            if self._fd >= 0:
                os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:  # nobody listens any more: the cluster starts all the same
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def relay(fd: int, reporter: Reporter) -> bool:
    """Read what a `PipeReporter` writes and pass it on; True when the cluster became ready."""
    with os.fdopen(fd) as lines:
        for line in lines:
            message = json.loads(line)
            if "step" in message:
                reporter.step(message["step"])
            elif "ready" in message:
                reporter.ready(message["ready"])
                return True
            elif "failed" in message:
                reporter.failed(message["failed"])
                return False
    reporter.failed("the supervisor ended without a word; look for its log in the data directory")
    return False
