"""One component alone, against any cluster: `pilotage proxy --kubeconfig F --node N` and its siblings.

Each command builds the component's own Config from flags and runs it until SIGTERM or Ctrl-C. What `up` does for a
cluster on this machine, a unit file or a manifest does elsewhere with these.
"""

import typer


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
