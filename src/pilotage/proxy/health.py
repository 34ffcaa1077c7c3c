"""Answers load balancers that ask "do you have an endpoint of this Service?" on its healthCheckNodePort.

Apart from the proxier because it serves, while the proxier watches. One tiny HTTP listener a Service with
externalTrafficPolicy Local; fed with counts by the proxier. Leaves out everything of HTTP that a health check does not
need.

Specification: Service.spec.healthCheckNodePort; the answer's shape is kube-proxy's.
"""

import asyncio
import functools
import json
from collections.abc import Mapping

from pilotage.telemetry import get_logger

_REQUEST_TIMEOUT_S = 5.0
_REQUEST_LINES_MAX = 100
_log = get_logger()


class HealthChecks:
    """Listeners by port; `apply` keeps them as wanted, `close` ends them."""

    def __init__(self, host: str = "") -> None:
        self._host = host or None
        self._servers: dict[int, asyncio.Server] = {}
        self._answers: dict[int, tuple[str, int]] = {}

    async def apply(self, wanted: Mapping[str, tuple[int, int]]) -> None:
        """`wanted`: Service → (port, endpoints on this node). A port that cannot be had is logged and tried again."""
        self._answers = {port: (service, count) for service, (port, count) in wanted.items()}
        for port in self._servers.keys() - self._answers.keys():
            self._servers.pop(port).close()
        for port in sorted(self._answers.keys() - self._servers.keys()):
            try:
                self._servers[port] = await asyncio.start_server(
                    functools.partial(self._answer, port), self._host, port, limit=8192
                )
            except OSError as error:
                _log.warning("health check port unavailable", port=port, error=str(error))

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def _answer(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                for _ in range(_REQUEST_LINES_MAX):
                    if await reader.readline() in (b"\r\n", b"\n", b""):
                        break
                service, count = self._answers.get(port, ("/", 0))
                namespace, _, name = service.partition("/")
                body = json.dumps({"service": {"namespace": namespace, "name": name}, "localEndpoints": count}).encode()
                status = "200 OK" if count else "503 Service Unavailable"
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                    # As kube-proxy says it, for balancers that can weigh their targets.
                    f"X-Load-Balancing-Endpoint-Weight: {count}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # the asker's trouble; it asks again
        finally:
            writer.close()
