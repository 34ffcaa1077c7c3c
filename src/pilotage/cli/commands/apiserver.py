"""The API server alone, and copies of its store: apiserver, apiserver backup, apiserver restore.

Apart from the other components because it is the only one that keeps something. Copies are of the default store, a
SQLite file; etcd has tools of its own for that.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pilotage.cli.commands.components import Listen, parse_listen
from pilotage.cli.options import LogLevel
from pilotage.cli.running import run_component

DATA_DIR = Path("pilotage-apiserver")
DataDir = Annotated[Path, typer.Option("--data-dir", help="Keys, admin.kubeconfig and, by default, the store.")]
Store = Annotated[str, typer.Option("--storage", help="sqlite:PATH. [default: sqlite:DATA_DIR/state.db]")]


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        help="Run the API server alone, or copy its store.",
        invoke_without_command=True,
        epilog="Example: pilotage apiserver --listen 127.0.0.1:6443 --data-dir ./api",
    )
    group.callback()(apiserver)
    group.command("backup", epilog="Example: pilotage apiserver backup --data-dir ./api monday.db")(backup)
    group.command("restore", epilog="Example: pilotage apiserver restore --data-dir ./api monday.db")(restore)
    app.add_typer(group, name="apiserver")


def apiserver(
    context: typer.Context,
    listen: Listen = "127.0.0.1:6443",
    storage: Annotated[
        str, typer.Option(help="memory:, sqlite:PATH or etcd:URL. [default: sqlite:DATA_DIR/state.db]")
    ] = "",
    data_dir: DataDir = DATA_DIR,
    advertise: Annotated[str, typer.Option(help="ADDRESS:PORT by which pods reach it. [default: listen]")] = "",
    service_cidr: Annotated[
        str, typer.Option(help="Addresses of Services; two with a comma for both families, the primary first.")
    ] = "10.96.0.0/16",
    node_ports: Annotated[str, typer.Option(help="Ports of Services on every node, FIRST-LAST.")] = "30000-32767",
    log_level: LogLevel = "info",
) -> int:
    """Run the API server alone; writes DATA_DIR/admin.kubeconfig when it is ready."""
    if context.invoked_subcommand is not None:
        return 0
    from pilotage.apiserver import Config, run

    _check_ranges(service_cidr)
    config = Config(
        data_dir=data_dir,
        storage=storage or f"sqlite:{data_dir / 'state.db'}",
        listen=parse_listen(listen),
        advertise=parse_listen(advertise) if advertise else None,
        service_cidr=service_cidr,
        node_ports=_parse_ports(node_ports),
    )
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return run_component("apiserver", log_level, lambda ready: run(config, on_ready=ready))


def _check_ranges(text: str) -> None:
    """A usage error unless it is a range of addresses, or one of each family."""
    import ipaddress

    try:
        versions = [ipaddress.ip_network(part.strip()).version for part in text.split(",")]
    except ValueError:
        versions = []
    if not versions or len(set(versions)) != len(versions):
        raise typer.BadParameter(f"{text!r} is not a range such as 10.96.0.0/16, or one of each family with a comma")


def _parse_ports(text: str) -> tuple[int, int]:
    """FIRST-LAST; a usage error else."""
    first, _, last = text.partition("-")
    if first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535:
        return int(first), int(last)
    raise typer.BadParameter(f"{text!r} is not FIRST-LAST, such as 30000-32767")


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    data_dir: DataDir = DATA_DIR,
    storage: Store = "",
) -> int:
    """Copy the store, whether the server runs or not, and check the copy."""
    from pilotage.apiserver import backup as copy

    copied = copy(_store(data_dir, storage), target)
    sys.stdout.write(f"{target}: {copied.objects} objects at revision {copied.revision}\n")
    return 0


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")],
    data_dir: DataDir = DATA_DIR,
    storage: Store = "",
) -> int:
    """Put a copy in the store's place while the server is stopped; the former store is kept beside it."""
    from pilotage.apiserver import restore as put_back

    store = _store(data_dir, storage)
    copied = put_back(source, store)
    sys.stdout.write(f"{store}: {copied.objects} objects as of revision {copied.revision}\n")
    return 0


def _store(data_dir: Path, storage: str) -> Path:
    from pilotage.kit import UsageError

    scheme, _, path = (storage or f"sqlite:{data_dir / 'state.db'}").partition(":")
    if scheme == "etcd":
        raise UsageError("etcd keeps its own copies: see `etcdctl snapshot save`")
    if scheme != "sqlite" or not path:
        raise UsageError(f"storage {storage!r} is not sqlite:PATH")
    return Path(path)
