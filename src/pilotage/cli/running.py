"""Runs one component in the foreground: logging, event loop, signals, one place for all of them.

Apart from the commands because they all do the same. SIGTERM and Ctrl-C cancel the component, which cleans up what must
not outlive it.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotage.client import Client

Ready = Callable[[], None]


def run_component(
    name: str, level: str, main: Callable[[Ready], Awaitable[None]], *, spawns_processes: bool = False
) -> int:
    """Run what `main` makes until it ends or a signal does; 0 when cancelled. PilotageError passes through."""
    from pilotage.kit import UsageError
    from pilotage.telemetry import configure_logging, get_logger
    from pilotage.telemetry.logs import LEVELS
    from pilotage.up.looping import run_async

    if level not in LEVELS:
        raise UsageError(f"log level {level!r} must be one of {', '.join(LEVELS)}")
    configure_logging(level, component=name)
    return run_async(lambda: main(lambda: get_logger().info("ready")), spawns_processes=spawns_processes)


def run_client(
    name: str,
    level: str,
    kubeconfig: Path,
    main: "Callable[[Client, Ready], Awaitable[None]]",
    *,
    spawns_processes: bool = False,
) -> int:
    """The same for a component that is a client of the API at `kubeconfig`."""

    async def with_client(ready: Ready) -> None:
        from pilotage.client import Client

        async with Client.from_kubeconfig(kubeconfig, user_agent=f"pilotage-{name}") as client:
            await main(client, ready)

    return run_component(name, level, with_client, spawns_processes=spawns_processes)
