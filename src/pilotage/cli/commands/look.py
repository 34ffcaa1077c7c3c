"""Looking at clusters: ls, status, kubeconfig, logs.

Data on standard output, as text or JSON; nothing here changes anything.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotage.cli.options import DEFAULT_NAME, Name, Output, is_json
from pilotage.cli.printers import print_json, print_table

if TYPE_CHECKING:
    from pilotage.api.core_v1 import Service
    from pilotage.api.discovery_v1 import EndpointSlice
    from pilotage.client import Client
    from pilotage.up import RunningCluster

_STATUS_TIMEOUT_S = 5.0
_EVENTS_S = 0.1
_FOLLOW_S = 0.2  # how often a followed log is looked at
_CHUNK_BYTES = 64 * 1024


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command("ls", epilog="Example: pilotage ls -o json")(list_clusters)
    app.command(epilog="Example: pilotage status --name dev -o json")(status)
    app.command(epilog="Example: export KUBECONFIG=$(pilotage kubeconfig)")(kubeconfig)
    app.command(epilog="Example: pilotage logs proxy-n1 --follow")(logs)


def list_clusters(output: Output = "text") -> int:
    """List this user's clusters."""
    from pilotage.kit import PilotageError
    from pilotage.up import cluster_names, find_cluster

    rows: list[dict[str, Any]] = []
    for name in cluster_names():
        try:
            found = find_cluster(name)
        except PilotageError:
            rows.append({"name": name, "state": "stopped", "nodes": 0, "api": "", "kubeconfig": ""})
            continue
        rows.append(
            {
                "name": name,
                "state": "ready" if found.ready else "starting",
                "nodes": len(found.nodes),
                "api": f"https://127.0.0.1:{found.ports['api']}" if found.ports else "",
                "kubeconfig": str(found.layout.kubeconfig),
            }
        )
    if is_json(output):
        print_json(rows)
    else:
        print_table(("name", "state", "nodes", "api", "kubeconfig"), rows)
    return 0


def status(name: Name = DEFAULT_NAME, output: Output = "text") -> int:
    """Show the health of every component, and how far each has applied the cluster's state (its watermark).

    The lag is how many revisions a watermark is behind the newest change of a Service or its endpoints; 0: it has all.

    Exit code 1 when something is not ready.
    """
    from pilotage.up import find_cluster

    as_json = is_json(output)
    cluster = find_cluster(name)
    watermarks, newest, problem = _watermarks(cluster)
    lags = {consumer: max(0, newest - value) for consumer, value in watermarks.items()}
    processes = [
        {
            "name": process.name,
            "phase": process.phase,
            "pid": process.pid,
            "restarts": process.restarts,
            "lastExit": process.last_exit,
            "watermark": watermarks.get(process.name),
            "lag": lags.get(process.name),
        }
        for process in cluster.processes
    ]
    healthy = not problem and all(process.phase in ("ready", "done") for process in cluster.processes)
    document = {
        "name": name,
        "ready": cluster.ready and healthy,
        "api": problem or "ok",
        "ports": cluster.ports,
        "nodes": list(cluster.nodes),
        "supervisor": {"pid": cluster.supervisor},
        "processes": processes,
        "watermarks": watermarks,
        "lags": lags,
    }
    if as_json:
        print_json(document)
    else:
        sys.stdout.write(
            f"Cluster {name}: {'healthy' if document['ready'] else 'not healthy'}; API: {document['api']}\n"
        )
        columns = ("name", "phase", "pid", "restarts", "lastExit", "watermark", "lag")
        print_table(columns, processes)
        named = {process.name for process in cluster.processes}
        for name, value in sorted(watermarks.items()):
            if name not in named:  # a consumer that shares a process
                sys.stdout.write(f"{name}: watermark {value}, lag {lags[name]}\n")
    return 0 if document["ready"] else 1


def _watermarks(cluster: "RunningCluster") -> tuple[dict[str, int], int, str]:
    """(watermark by process name, the newest change they tell of, what is wrong with the API or "")."""
    import asyncio

    from pilotage.api.core_v1 import Service
    from pilotage.api.discovery_v1 import EndpointSlice
    from pilotage.client import Client

    async def read() -> tuple[dict[str, int], int]:
        async with Client.from_kubeconfig(cluster.layout.kubeconfig) as client, asyncio.timeout(_STATUS_TIMEOUT_S):
            since = min((await _applied(client)).values(), default=0)
            newest = max(await asyncio.gather(*(_newest(client, kind, since) for kind in (Service, EndpointSlice))))
            # Once more, so that a change that came meanwhile is not taken for a lag.
            return await _applied(client), newest

    try:
        return (*asyncio.run(read()), "")
    except Exception as error:  # whatever is wrong with the API is what this command is asked to show
        return {}, 0, f"{type(error).__name__}: {error}"[:200]


async def _applied(client: "Client") -> dict[str, int]:
    """Each consumer's watermark."""
    from pilotage.api.coordination_v1 import Lease
    from pilotage.client.watermark import ANNOTATION, CONSUMER_LABEL, NODE_LABEL

    found: dict[str, int] = {}
    for lease in (await client.list(Lease, namespace="kube-system")).items:
        labels, value = lease.metadata.labels, lease.metadata.annotations.get(ANNOTATION, "")
        if CONSUMER_LABEL in labels and value.isdigit():
            found["-".join(filter(None, (labels[CONSUMER_LABEL], labels.get(NODE_LABEL, ""))))] = int(value)
    return found


async def _newest(client: "Client", kind: "type[Service] | type[EndpointSlice]", since: int) -> int:
    """The last change of a kind: of what exists, or of what was deleted after `since` and is still remembered."""
    import asyncio

    from pilotage.api.status import ApiError, is_gone

    newest = max((one.metadata.version_number for one in (await client.list(kind)).items), default=0)
    try:
        async with asyncio.timeout(_EVENTS_S):
            async for event in client.watch(kind, resource_version=str(since)):
                if event.type != "BOOKMARK":
                    newest = max(newest, event.object.metadata.version_number)
    except TimeoutError:
        pass  # what has happened comes at once
    except ApiError as error:
        if not is_gone(error):
            raise
    return newest


def kubeconfig(name: Name = DEFAULT_NAME) -> int:
    """Print the path of the administrator's kubeconfig."""
    from pilotage.up import find_cluster

    sys.stdout.write(f"{find_cluster(name).layout.kubeconfig}\n")
    return 0


def logs(
    process: Annotated[str, typer.Argument(help="A name from `pilotage status`, or supervisor, or zygote.")],
    name: Name = DEFAULT_NAME,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added.")] = False,
) -> int:
    """Print the log of one process of a cluster; it survives `down`."""
    from pilotage.kit import PilotageError
    from pilotage.up import find_cluster, make_layout

    try:
        layout = find_cluster(name).layout
    except PilotageError:
        layout = make_layout(name)
    path = layout.log(process)
    if not path.is_file():
        known = sorted(log.stem for log in layout.logs.glob("*.log"))
        raise PilotageError(f"no log of {process} in {layout.logs}; there is {', '.join(known) or 'none at all'}")
    _print_log(path, follow)
    return 0


def _print_log(path: Path, follow: bool) -> None:
    import time

    with path.open("rb") as log:
        while True:
            while chunk := log.read(_CHUNK_BYTES):
                sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            if not follow:
                return
            if path.stat().st_size < log.tell():  # it was cut at its bound
                log.seek(0)
            time.sleep(_FOLLOW_S)
