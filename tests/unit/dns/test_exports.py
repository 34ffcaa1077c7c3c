"""The package's surface, and what its modules may cost."""

from __future__ import annotations

import subprocess
import sys

import pilotage.dns


def test_surface() -> None:
    assert pilotage.dns.__all__ == ["Config", "Server", "record_definition", "run"]


def test_importing_starts_nothing_and_leaves_the_heavy_parts_out() -> None:
    """Every component is forked from a process that has imported them all."""
    code = (
        "import sys, threading, pilotage.dns;"
        "print(threading.active_count(), [m for m in ('dns.message', 'grpc', 'aiohttp.web') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert output.split(maxsplit=1) == ["1", "[]\n"]
