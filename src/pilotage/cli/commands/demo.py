"""`pilotage demo`: runs the case topology and prints one line per check.

Apart from `pilotage.cli.demo`, which does the work, because only this knows arguments and the terminal.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

_GREEN, _RED, _RESET = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    app.command(epilog="Example: pilotage demo --nodes 3 --keep")(demo)


def demo(
    manifests: Annotated[Path, typer.Option(help="Folder with the topology's manifests.")] = Path("examples/topology"),
    svg: Annotated[Path, typer.Option(help="Where to draw the topology.")] = Path("topology.svg"),
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the cluster to start.")] = "demo",
    nodes: Annotated[int, typer.Option(help="How many nodes.")] = 2,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running.")] = False,
) -> int:
    """Start a cluster, apply the case topology, prove every path with real traffic, draw it, clean up.

    Exit code 1 when a check fails.
    """
    import asyncio

    from pilotage.cli.demo import DemoOptions, run_demo

    colour = sys.stdout.isatty()

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def line(passed: bool, title: str, asked: str, answered: str) -> None:
        mark = "ok  " if passed else "FAIL"
        if colour:
            mark = f"{_GREEN if passed else _RED}{mark}{_RESET}"
        say(f"{mark} {title}: {asked} → {answered}")

    options = DemoOptions(manifests=manifests, svg=svg, name=name, nodes=nodes, keep=keep)
    return asyncio.run(run_demo(options, say, line))
