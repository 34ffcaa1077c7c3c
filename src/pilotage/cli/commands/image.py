"""Images of this user's clusters: load, ls, rm.

The store belongs to the agent; it needs no running cluster.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotage.cli.options import Output, is_json
from pilotage.cli.printers import print_json, print_table

if TYPE_CHECKING:
    from pilotage.agent.images import ImageStore


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        help="Images that pods can use.", no_args_is_help=True, epilog="Example: pilotage image load web.tar"
    )
    group.command("load", epilog="Example: pilotage image load web.tar --tag example.com/web:1")(load)
    group.command("ls", epilog="Example: pilotage image ls -o json")(list_images)
    group.command("rm", epilog="Example: pilotage image rm example.com/web:1")(remove)
    app.add_typer(group, name="image")


def load(
    archive: Annotated[Path, typer.Argument(help="An OCI or docker archive (`docker save`, `skopeo copy`).")],
    tag: Annotated[str, typer.Option("--tag", help="The name to give it, instead of the archive's own.")] = "",
) -> int:
    """Load an archive into the image store; prints the image's name."""
    sys.stdout.write(f"{_store().load(archive, tag)}\n")
    return 0


def list_images(output: Output = "text") -> int:
    """List the images in the store."""
    rows = [{"name": image.name, "digest": image.digest, "sizeBytes": image.size_bytes} for image in _store().list()]
    if is_json(output):
        print_json(rows)
    else:
        print_table(("name", "digest", "sizeBytes"), rows)
    return 0


def remove(name: Annotated[str, typer.Argument(help="The image's name, as `pilotage image ls` shows it.")]) -> int:
    """Remove an image from the store."""
    _store().remove(name)
    return 0


def _store() -> "ImageStore":
    from pilotage.agent.images import ImageStore
    from pilotage.up import make_layout

    return ImageStore(make_layout("any").images)
