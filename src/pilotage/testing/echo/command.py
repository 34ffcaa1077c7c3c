"""The `pilotage-echo` command: serve (the default), call, resolve.

A composition root of its own, because it runs inside pods where nothing else of Pilotage does. It reads flags and the
environment, builds the values the other modules take, and prints one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence

from pilotage.testing.echo.identity import Identity, Json

CALLS_MAX = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 ok, 1 failed (the JSON says why), 2 usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    match words[:1]:
        case ["call"]:
            return _call(words[1:])
        case ["resolve"]:
            return _resolve(words[1:])
        case _:
            return _serve(words)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _print(outcome: Json) -> None:
    print(json.dumps(outcome, indent=2))


def _serve(words: list[str]) -> int:
    from pilotage.testing.echo.server import Config
    from pilotage.testing.echo.upstream import Call

    parser = argparse.ArgumentParser(
        prog="pilotage-echo",
        description="Answer HTTP, gRPC, TCP and UDP by saying who answered and what it saw. "
        "Further commands: `pilotage-echo call URL`, `pilotage-echo resolve NAME`.",
        epilog="example: pilotage-echo --http 8080 --call http://api:8080/ --call tcp://db-0.db:5432",
    )
    for protocol in ("http", "grpc", "tcp", "udp"):
        parser.add_argument(f"--{protocol}", type=_port, metavar="PORT", help=f"serve {protocol} (0: any free port)")
    parser.add_argument("--listen", default="", metavar="ADDRESS", help="listen on this address only")
    parser.add_argument("--call", action="append", default=[], metavar="URL", help="ask this upstream for each request")
    parser.add_argument("--call-timeout", type=float, default=2.0, metavar="SECONDS", help="for each upstream")
    parser.add_argument(
        "--drain", type=float, default=0.0, metavar="SECONDS", help="after SIGTERM still accept so long"
    )
    parser.add_argument("--grace", type=float, default=10.0, metavar="SECONDS", help="then wait for open requests")
    parser.add_argument("--quiet", action="store_true", help="log no requests")
    flags = parser.parse_args(words)
    if flags.http is None and flags.grpc is None and flags.tcp is None and flags.udp is None:
        parser.error("nothing to serve: give --http, --grpc, --tcp or --udp")
    for url in flags.call:
        try:
            Call(url=url).parse()
        except ValueError as error:
            parser.error(str(error))
    config = Config(
        identity=Identity.from_environment(os.environ, hostname=socket.gethostname()),
        address=flags.listen,
        http_port=flags.http,
        grpc_port=flags.grpc,
        tcp_port=flags.tcp,
        udp_port=flags.udp,
        upstreams=tuple(flags.call),
        upstream_timeout_s=flags.call_timeout,
        drain_s=flags.drain,
        grace_s=flags.grace,
        log_requests=not flags.quiet,
    )

    async def serve() -> int:
        from pilotage.testing.echo.server import EchoServer

        server = EchoServer(config)
        await server.start()
        return await server.run()

    try:
        return asyncio.run(serve())
    except OSError as error:
        print(f"pilotage-echo: cannot listen: {error}", file=sys.stderr)
        return 1


def _call(words: list[str]) -> int:
    from pilotage.testing.echo.upstream import Call, perform

    parser = argparse.ArgumentParser(
        prog="pilotage-echo call",
        description="Ask a server once, or --count times, and print the answer as JSON.",
        epilog="example: pilotage-echo call https://shop.example.test/ --connect 127.0.0.1:8443 --cacert ca.crt",
    )
    parser.add_argument("url", help="http, https, grpc, grpcs, tcp or udp")
    parser.add_argument("--method", "-X", default="", help="default: GET, or POST with --data")
    parser.add_argument("--header", "-H", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--data", "-d", default="", help="the body, the line, the datagram or the JSON message")
    parser.add_argument("--connect", default="", metavar="ADDRESS:PORT", help="dial this instead of the URL's host")
    parser.add_argument("--cacert", default="", metavar="FILE", help="PEM roots to trust")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--count", type=int, default=1, help="ask this often and print who answered how many")
    parser.add_argument("--parallel", type=int, default=1, help="with --count: this many at a time")
    flags = parser.parse_args(words)
    headers = {}
    for header in flags.header:
        name, separator, value = header.partition(":")
        if not separator or not name.strip() or "\n" in header or "\r" in header:
            parser.error(f"{header!r}: expected NAME: VALUE")
        headers[name.strip()] = value.strip()
    call = Call(
        url=flags.url,
        method=flags.method or ("POST" if flags.data else "GET"),
        headers=headers,
        body=flags.data.encode(),
        connect=flags.connect,
        ca_file=flags.cacert,
        timeout_s=flags.timeout,
    )
    try:
        call.parse()
    except ValueError as error:
        parser.error(str(error))
    if not 1 <= flags.count <= CALLS_MAX or not 1 <= flags.parallel <= 1000:
        parser.error(f"--count is between 1 and {CALLS_MAX}, --parallel between 1 and 1000")
    if flags.count == 1:
        outcome = asyncio.run(perform(call))
    else:
        outcome = asyncio.run(_repeat(call, flags.count, flags.parallel))
    _print(outcome)
    return 1 if "error" in outcome or "errors" in outcome else 0


async def _repeat(call: object, count: int, parallel: int) -> Json:
    from pilotage.testing.echo.upstream import Call, perform

    assert isinstance(call, Call)
    pods: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    left = iter(range(count))

    async def ask() -> None:
        for _ in left:
            outcome = await perform(call)
            if "error" in outcome:
                errors[str(outcome["error"])] += 1
                continue
            statuses[str(outcome.get("status", "ok"))] += 1
            answer = outcome.get("answer")
            who = answer.get("answered_by") if isinstance(answer, dict) else None
            pods[str(who.get("pod")) if isinstance(who, dict) else "?"] += 1

    await asyncio.gather(*(ask() for _ in range(min(parallel, count))))
    summary: Json = {"url": call.url, "count": count, "pods": dict(sorted(pods.items())), "statuses": dict(statuses)}
    return summary | ({"errors": dict(errors.most_common(10))} if errors else {})


def _resolve(words: list[str]) -> int:
    from pilotage.testing.echo.resolve import Resolution, resolve

    parser = argparse.ArgumentParser(
        prog="pilotage-echo resolve",
        description="Ask DNS as this pod does, through its resolv.conf, and print every step as JSON.",
        epilog="example: pilotage-echo resolve _http._tcp.api --type SRV",
    )
    parser.add_argument("name")
    parser.add_argument("--type", default="A", help="A, AAAA, SRV, CNAME, PTR, TXT …")
    parser.add_argument("--resolv-conf", default="/etc/resolv.conf", metavar="FILE")
    parser.add_argument("--server", default="", metavar="ADDRESS", help="ask this server instead of the file's")
    parser.add_argument("--port", type=_port, default=53)
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS")
    flags = parser.parse_args(words)
    outcome = asyncio.run(
        resolve(
            Resolution(
                name=flags.name,
                record_type=flags.type,
                resolv_conf=flags.resolv_conf,
                server=flags.server,
                port=flags.port,
                tcp=flags.tcp,
                timeout_s=flags.timeout,
            )
        )
    )
    _print(outcome)
    return 1 if "error" in outcome else 0
