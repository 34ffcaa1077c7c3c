"""The DNS server alone, and tools around it: dns, dns check, dns import-corefile, dns ndots.

Apart from the other components because it has commands of its own.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pilotage.cli.options import Kubeconfig, LogLevel, Node, Output, is_json
from pilotage.cli.running import run_client, run_component


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group = typer.Typer(
        help="Run a cluster's DNS server on one node, or prepare its configuration.",
        invoke_without_command=True,
        epilog="Example: pilotage dns --kubeconfig dns.kubeconfig --listen 10.0.0.5:53 --node worker-1",
    )
    group.callback()(dns)
    group.command("check", epilog="Example: pilotage dns check dns.yaml")(check)
    group.command("import-corefile", epilog="Example: pilotage dns import-corefile Corefile > dns.yaml")(
        import_corefile
    )
    group.command("ndots", epilog="Example: pilotage dns ndots --kubeconfig admin.kubeconfig")(ndots)
    app.add_typer(group, name="dns")
    app.command(
        "external-dns",
        epilog="Example: pilotage external-dns --kubeconfig e.kubeconfig --server 192.0.2.53 --zone apps.example "
        "--owner blue --key-file tsig.key",
    )(external_dns)


def dns(
    context: typer.Context,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Credentials for the cluster's API; required.")
    ] = None,
    listen: Annotated[
        list[str] | None, typer.Option("--listen", help="ADDRESS:PORT to answer on; may be repeated; required.")
    ] = None,
    config_file: Annotated[
        str, typer.Option("--config", help="File with the chain of steps; taken up again when it changes.")
    ] = "",
    node: Node = "",
    zone: Annotated[str, typer.Option(help="The cluster's domain.")] = "cluster.local",
    reverse_cidr: Annotated[
        list[str] | None, typer.Option(help="Service or pod range whose reverse names are answered here alone.")
    ] = None,
    pods: Annotated[str, typer.Option(help="Pod records: disabled, insecure or verified.")] = "insecure",
    ttl: Annotated[int, typer.Option(help="Seconds an answer may be believed, without `ttl` in the file.")] = 5,
    upstream: Annotated[list[str] | None, typer.Option(help="Where other names are asked for, without a file.")] = None,
    resolv_conf: Annotated[str, typer.Option(help="A file whose nameservers are the upstreams.")] = "",
    publish: Annotated[str, typer.Option(help="NAMESPACE/NAME of the Service to serve from this node.")] = "",
    health: Annotated[str, typer.Option(help="ADDRESS:PORT of /metrics, /readyz and /leases.")] = "",
    listen_tls: Annotated[list[str] | None, typer.Option(help="ADDRESS:PORT for DNS over TLS.")] = None,
    listen_https: Annotated[list[str] | None, typer.Option(help="ADDRESS:PORT for DNS over HTTPS.")] = None,
    tls_cert: Annotated[str, typer.Option(help="Certificate of both.")] = "",
    tls_key: Annotated[str, typer.Option(help="Its key.")] = "",
    transfer_to: Annotated[list[str] | None, typer.Option(help="Addresses that may have the whole zone.")] = None,
    snapshot: Annotated[str, typer.Option(help="File for the last good view, for a start without the API.")] = "",
    handover: Annotated[str, typer.Option(help="Socket by which the next process takes over the ports.")] = "",
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that share the ports; each has a core's worth and a table.")
    ] = 1,
    worker: Annotated[int, typer.Option(hidden=True)] = 0,
    log_level: LogLevel = "info",
) -> int:
    """Run a cluster's DNS server on one node."""
    if context.invoked_subcommand is not None:
        return 0
    from pilotage.client import Client
    from pilotage.dns import Config, run
    from pilotage.dns.workers import RELIEVED, check_handover

    if kubeconfig is None:
        raise typer.BadParameter("missing option --kubeconfig")
    if not listen:
        raise typer.BadParameter("missing option --listen")
    if workers > 1 and not worker:
        if any(text.endswith(":0") for text in (*listen, *(listen_tls or ()), *(listen_https or ()))):
            raise typer.BadParameter("--workers does not go with port 0")
        return _run_workers(workers, handover, log_level)
    config = Config(
        listen=tuple(listen),
        listen_tls=tuple(listen_tls or ()),
        listen_https=tuple(listen_https or ()),
        certificate=tls_cert,
        key=tls_key,
        transfer_to=tuple(transfer_to or ()),
        zone=zone,
        reverse_cidrs=tuple(reverse_cidr or ()),
        upstreams=tuple(upstream or ()),
        resolv_conf=resolv_conf,
        ttl_s=ttl,
        pods=pods,
        node=node,
        publish_service=publish,
        health=health,
        config_file=config_file,
        snapshot_file=snapshot,
        handover=handover,
        reuse_port=worker > 0,
        worker=worker,
    )
    config.check()
    if handover and not worker:
        check_handover(handover, 1)
    relieved = False

    async def serve(client: Client, ready: Callable[[], None]) -> None:
        nonlocal relieved
        await run(config, client, on_ready=ready)
        relieved = True

    status = run_client("dns", log_level, kubeconfig, serve)
    return RELIEVED if relieved and worker else status


def _run_workers(workers: int, handover: str, log_level: str) -> int:
    """This very command once for each worker; only the first has the health port and the snapshot."""
    from pilotage.dns.workers import check_handover, handover_path, run_workers

    commands = [[sys.executable, "-m", "pilotage.cli", *sys.argv[1:], "--worker", str(n + 1)] for n in range(workers)]
    if handover:
        check_handover(handover, workers)
        for number, words in enumerate(commands, 1):
            words += ["--handover", handover_path(handover, number)]
    for words in commands[1:]:
        words += ["--health", "", "--snapshot", ""]
    return run_component("dns", log_level, lambda _: run_workers(commands), spawns_processes=True)


def check(file: Annotated[Path, typer.Argument(help="The configuration file.")]) -> int:
    """Say what is wrong with a configuration file, with lines; nothing when it is right."""
    from pilotage.dns.chain.build import check_file

    check_file(str(file), lambda path: Path(path).read_text(encoding="utf-8"))
    return 0


def import_corefile(file: Annotated[Path, typer.Argument(help="A Corefile of CoreDNS.")]) -> int:
    """Print the configuration that does the same; on stderr what has no counterpart. Fails if there is any."""
    from pilotage.dns.chain.build import read_plan
    from pilotage.dns.core.corefile import convert
    from pilotage.kit.errors import UsageError

    try:
        made = convert(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file}:{error}") from error
    document = made.document()
    if made.flags:
        typer.echo(f"# pilotage dns {' '.join(made.flags)} --config FILE …")
    typer.echo(document, nl=False)
    for line in made.notes:
        typer.echo(f"{file}:{line}", err=True)
    for line in made.missing:
        typer.echo(f"{file}:{line} (not translated)", err=True)
    if made.steps:
        try:
            read_plan(document, "the result")
        except UsageError as error:
            typer.echo(str(error), err=True)
            return 1
    return 1 if made.missing else 0


def ndots(
    kubeconfig: Kubeconfig,
    events: Annotated[
        Path | None, typer.Option(help="A log of JSON events (`log: {format: json}`), to count what was wasted.")
    ] = None,
    zone: Annotated[str, typer.Option(help="The cluster's domain.")] = "cluster.local",
    output: Output = "text",
) -> int:
    """Who pays for ndots:5, and the dnsConfig that ends it."""
    as_json = is_json(output)
    from pilotage.api.core_v1 import Pod
    from pilotage.cli.printers import print_json, print_table
    from pilotage.client import Client
    from pilotage.dns.core.name import from_text
    from pilotage.dns.core.ndots import report, wasted_questions
    from pilotage.dns.ndots import facts_of
    from pilotage.up.looping import run_async

    wasted = None
    if events is not None:
        with events.open(encoding="utf-8") as lines:
            wasted = wasted_questions((json.loads(line) for line in lines if line.startswith("{")), from_text(zone))
    pods: list[Pod] = []

    async def read() -> None:
        async with Client.from_kubeconfig(kubeconfig, user_agent="pilotage-dns") as client:
            pods.extend((await client.list(Pod)).items)

    run_async(read)
    rows = report(map(facts_of, pods), wasted)
    if as_json:
        print_json([{name: getattr(row, name) for name in row.__slots__} for row in rows])
        return 0
    columns = ("namespace", "workload", "pods", "ndots", "extra_per_name", "wasted")
    print_table(columns, [{name: getattr(row, name) for name in columns} for row in rows])
    if rows:
        typer.echo('\nIn the pod template: {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}')
        typer.echo("Or, without touching any: `- search:` in the DNS server's configuration file.")
    return 0


def external_dns(
    kubeconfig: Kubeconfig,
    server: Annotated[str, typer.Option(help="ADDRESS:PORT of the authoritative server (RFC 2136).")],
    zone: Annotated[str, typer.Option(help="The zone to publish in.")],
    owner: Annotated[str, typer.Option(help="This cluster's name in ownership records.")],
    key_file: Annotated[
        Path | None, typer.Option(help="TSIG key: one line ALGORITHM:NAME:SECRET, as kdig takes it.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="service, ingress or gateway; may be repeated. [default: all]")
    ] = None,
    log_level: LogLevel = "info",
) -> int:
    """Publish hostnames of Services, Ingresses and Gateways on an authoritative server."""
    from pilotage.dns.external import Config, parse_key, run
    from pilotage.kit.errors import UsageError

    try:
        key = parse_key(key_file.read_text(encoding="utf-8")) if key_file is not None else None
    except OSError as error:
        raise UsageError(f"{key_file}: {error.strerror}") from error
    config = Config(server=server, zone=zone, owner=owner, key=key)
    if source:
        config = Config(server=server, zone=zone, owner=owner, key=key, sources=tuple(source))
    config.check()
    return run_client("external-dns", log_level, kubeconfig, lambda client, ready: run(config, client, on_ready=ready))
