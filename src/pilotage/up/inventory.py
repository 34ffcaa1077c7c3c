"""What clusters there are, and what their supervisors say of them.

Apart from the supervisor because any process may ask. Reads `status.json` and the lock beside it; called by `ls`,
`status`, `kubeconfig`, `shell`. Health that only the API knows (watermarks) is read by the command line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.kit import PilotageError
from pilotage.up.core.config import NAME
from pilotage.up.layout import Layout, make_layout
from pilotage.up.process import lock_holder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """One process of a cluster, as its supervisor last wrote it."""

    name: str
    phase: str
    pid: int  # inside the fabric; 0: none
    restarts: int
    last_exit: str  # empty: never ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCluster:
    """One cluster with a living supervisor."""

    layout: Layout
    supervisor: int
    zygote: int  # PID 1 of the fabric, as the host sees it
    ready: bool
    ports: dict[str, int]
    fabric_address: str
    domain: str
    nodes: tuple[str, ...]
    processes: tuple[RunningProcess, ...]
    steps: tuple[tuple[float, str], ...]  # of the start: seconds since its beginning, what was done


def find_cluster(name: str) -> RunningCluster:
    """The cluster of that name; PilotageError with what to do when none runs."""
    layout = make_layout(name)
    supervisor = lock_holder(layout.lock)
    if not supervisor:
        raise PilotageError(f"no cluster named {name} is running; start it with `pilotage up --name {name}`")
    try:
        document = json.loads(layout.status.read_text())
        return _read(layout, supervisor, document)
    except (OSError, ValueError, KeyError) as error:
        raise PilotageError(f"cluster {name} is only just starting; try again in a second") from error


def cluster_names() -> tuple[str, ...]:
    """Names with a run directory, sorted: running clusters and what killed ones left behind."""
    return tuple(sorted(_names(make_layout("any").run_base)))


def _names(base: Path) -> Iterator[str]:
    if base.is_dir():
        yield from (entry.name for entry in base.iterdir() if entry.is_dir() and NAME.fullmatch(entry.name))


def _read(layout: Layout, supervisor: int, document: dict[str, Any]) -> RunningCluster:
    # The data directory may have been chosen by hand: the supervisor knows it, the environment does not.
    layout = make_layout(layout.name, data_dir=document["data"])
    return RunningCluster(
        layout=layout,
        supervisor=supervisor,
        zygote=document["zygote"]["pid"],
        ready=document["ready"],
        ports=document["ports"],
        fabric_address=document["fabricAddress"],
        domain=document["domain"],
        nodes=tuple(node["name"] for node in document["nodes"]),
        processes=tuple(
            RunningProcess(
                name=name,
                phase=state["phase"],
                pid=state["pid"],
                restarts=state["restarts"],
                last_exit=state["lastExit"],
            )
            for name, state in document["processes"].items()
        ),
        steps=tuple((step["seconds"], step["done"]) for step in document["steps"]),
    )
