"""Printers of a start's progress: a live list on a terminal, one line a step anywhere else.

Apart from the commands because `rich` is imported only where there is a terminal, and only after the first process has
been started. On standard error, so that standard output carries the kubeconfig's path alone.
"""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from pilotage.up.progress import Reporter


def make_reporter() -> "Reporter":
    """The printer that suits standard error."""
    return LiveReporter() if sys.stderr.isatty() else LineReporter()


class LineReporter:
    """One line a step, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._started:5.2f} s  {text}\n")
        sys.stderr.flush()

    def ready(self, summary: Mapping[str, str]) -> None:
        sys.stderr.write("\n".join(closing_lines(summary)) + "\n")
        sys.stderr.flush()
        sys.stdout.write(summary["kubeconfig"] + "\n")
        sys.stdout.flush()

    def failed(self, text: str) -> None:
        sys.stderr.write(f"pilotage: {' '.join(text.split())}\n")
        sys.stderr.flush()


class LiveReporter:
    """Steps as a list that grows in place under a title. Redrawn on each step only: no thread, since we fork."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[float, str]] = []
        self._live: Live | None = None

    def step(self, text: str) -> None:
        self._steps.append((time.monotonic() - self._started, text))
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> "Text":
        from rich.text import Text

        picture = Text().append("Starting cluster\n", style="bold")
        for seconds, text in self._steps:
            picture.append(f"{seconds:6.2f} s ", style="dim").append("✔ ", style="green").append(f"{text}\n")
        return picture

    def ready(self, summary: Mapping[str, str]) -> None:
        self._stop()
        LineReporter().ready(summary)

    def failed(self, text: str) -> None:
        self._stop()
        LineReporter().failed(text)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def closing_lines(summary: Mapping[str, str]) -> list[str]:
    """What a user wants to know once the cluster is up."""
    option = "" if summary["name"] == "pilotage" else f" --name {summary['name']}"
    return [
        f"Cluster {summary['name']} is ready ({summary['seconds']} s).",
        f"  API      {summary['api']}",
        f"  ingress  {summary['http']}  {summary['https']}",
        f"  use it   export KUBECONFIG={summary['kubeconfig']}",
        f"  go in    pilotage shell{option}",
        f"  stop it  pilotage down{option}",
    ]
