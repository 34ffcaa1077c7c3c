"""What a composition root is handed: everything about the cluster and its own place in it.

Apart from the zygote so that roots import values, not the machinery that runs them. Fed by the zygote after the fork;
read by `pilotage.up.roots`.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pilotage.up.core.config import ClusterConfig
from pilotage.up.core.plan import NodePlan, Plan
from pilotage.up.core.processes import Process
from pilotage.up.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One process about to run."""

    process: Process
    config: ClusterConfig
    plan: Plan
    layout: Layout
    sockets: Mapping[str, socket.socket]  # listening on the host's loopback: "api", "http", "https"
    on_ready: Callable[[], None]  # tells the supervisor; may be called again
    progress: Callable[[str], None]  # a line for whoever watches the start
    on_issued: Callable[[], None]  # the credentials of all identities are there: their processes may start

    @property
    def node(self) -> NodePlan:
        """The node it runs on; KeyError for a process of the whole cluster."""
        return self.plan.node(self.process.node)

    def ready_with(self, *parts: str) -> dict[str, Callable[[], None]]:
        """A callback for each part of the process; the process is ready when all have been called."""
        missing = set(parts)

        def done(part: str) -> None:
            missing.discard(part)
            if not missing:
                self.on_ready()

        return {part: partial(done, part) for part in parts}

    def kubeconfig(self, file: str) -> Path:
        """The credentials of one identity."""
        return self.layout.credential(file)
