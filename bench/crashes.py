"""kill -9 of the API server, two hundred times: the figures are how much was at stake, the run itself is the proof."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, progress
from pilotage.testing.crashes import CrashRun, Report

KILLS = 200


def figures() -> Iterator[Figure]:
    """Kills, writes and events of one run; a broken promise ends it with an AssertionError."""
    seed = random.randrange(1 << 32)  # noqa: S311 - it chooses moments
    progress(f"{KILLS} kills, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        report: Report = asyncio.run(CrashRun(Path(directory), seed).run(KILLS))
    for name, value in (
        ("kills of the server, all promises kept", report.kills),
        ("writes acknowledged, none lost", report.acknowledged),
        ("writes cut off, each happened wholly or not at all", report.in_doubt),
        ("… of which had happened", report.happened),
        ("events watched, each once and in order", report.events),
        ("watches resumed", report.resumed),
        ("watches told to list again", report.relisted),
    ):
        yield Figure(name=name, unit="", values=[float(value)])
