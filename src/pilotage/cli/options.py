"""Options that several commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_NAME = "pilotage"

Name = Annotated[str, typer.Option("--name", "-n", help="Name of the cluster.", show_default=True)]
Output = Annotated[str, typer.Option("--output", "-o", help="text or json.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
Kubeconfig = Annotated[Path, typer.Option("--kubeconfig", help="Credentials for the cluster's API.")]
Node = Annotated[str, typer.Option("--node", help="Name of the Node object this process serves.")]


def is_json(output: str) -> bool:
    """Whether `--output` asks for JSON; a usage error for anything but text and json."""
    if output not in ("text", "json"):
        raise typer.BadParameter(f"output {output!r} is neither text nor json")
    return output == "json"
