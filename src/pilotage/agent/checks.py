"""One look at a container: HTTP, TCP, gRPC or a command, for probes and for lifecycle hooks.

Stands apart because probes and hooks ask the same questions. Answers are (success, message) with the kubelet's words;
nothing here counts or decides. gRPC is imported when the first gRPC probe runs.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import aiohttp

from pilotage.agent.runtime import Runtime, RuntimeFailure
from pilotage.api.core_v1 import (
    Container,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    LifecycleHandler,
    Probe,
    TCPSocketAction,
)

USER_AGENT = "kube-probe/1.36"
OUTPUT_BYTES_MAX = 10 * 1024  # of a probe command or an HTTP body, as the kubelet keeps
Outcome = tuple[bool, str]


class Checker:
    """Asks containers. One HTTP session for all, connections are never reused (a probe must test accepting one)."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def probe(self, probe: Probe, container: Container, container_id: str, pod_ip: str) -> Outcome:
        """Run one probe; never raises."""
        timeout_s = float(max(probe.timeout_seconds, 1))
        if probe.exec is not None:
            return await self.execute(probe.exec, container_id, timeout_s)
        if probe.http_get is not None:
            return await self._http(probe.http_get, container, pod_ip, timeout_s)
        if probe.tcp_socket is not None:
            return await self._tcp(probe.tcp_socket, container, pod_ip, timeout_s)
        if probe.grpc is not None:
            return await _grpc(probe.grpc, pod_ip, timeout_s)
        return True, ""

    async def hook(
        self, handler: LifecycleHandler, container: Container, container_id: str, pod_ip: str, timeout_s: float | None
    ) -> Outcome:
        """Run one lifecycle hook; never raises. `timeout_s` None: as long as it takes."""
        if handler.exec is not None:
            return await self.execute(handler.exec, container_id, timeout_s)
        if handler.http_get is not None:
            return await self._http(handler.http_get, container, pod_ip, timeout_s)
        if handler.sleep is not None:
            seconds = float(handler.sleep.seconds)
            await asyncio.sleep(seconds if timeout_s is None else min(seconds, timeout_s))
        return True, ""

    async def execute(self, action: ExecAction, container_id: str, timeout_s: float | None) -> Outcome:
        """Run a command inside; success is exit code 0."""
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._runtime.execute(container_id, action.command)
                try:
                    output = bytearray()
                    async for _, chunk in session.output():
                        output += chunk[: OUTPUT_BYTES_MAX - len(output)]
                    code = await session.wait()
                finally:
                    await session.aclose()
        except TimeoutError:
            return False, f"command timed out: {' '.join(action.command)!r} timed out after {timeout_s:g}s"
        except (RuntimeFailure, OSError) as error:
            return False, str(error)
        return code == 0, output.decode(errors="replace").strip()

    async def _http(self, action: HTTPGetAction, container: Container, pod_ip: str, timeout_s: float | None) -> Outcome:
        port = port_number(action.port, container)
        if port is None:
            return False, f'couldn\'t find port: "{action.port}"'
        host = action.host or pod_ip
        shown = _bracketed(host)
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        url = f"{action.scheme.lower()}://{shown}:{port}{path}"
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Connection": "close"}
        headers |= {header.name: header.value for header in action.http_headers}
        try:
            async with self._http_session().get(
                url,
                headers=headers,
                ssl=False,  # the kubelet does not verify either: the certificate names a Service, not an address
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                if 200 <= response.status < 400:
                    return True, ""
                return False, f"HTTP probe failed with statuscode: {response.status}"
        except TimeoutError:
            return False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return False, f'Get "{url}": {_reason(error, f"{shown}:{port}")}'

    def _http_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def _tcp(self, action: TCPSocketAction, container: Container, pod_ip: str, timeout_s: float) -> Outcome:
        port = port_number(action.port, container)
        if port is None:
            return False, f'couldn\'t find port: "{action.port}"'
        host = action.host or pod_ip
        address = f"{_bracketed(host)}:{port}"
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return False, f"dial tcp {address}: i/o timeout"
        except OSError as error:
            return False, _reason(error, address)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True, ""


def port_number(port: int | str, container: Container) -> int | None:
    """A number, or the container port of that name; None if there is none."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    return next((one.container_port for one in container.ports if one.name == port), None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _grpc(action: GRPCAction, pod_ip: str, timeout_s: float) -> Outcome:
    """The gRPC health checking protocol (KEP-2727)."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address = f"{_bracketed(pod_ip)}:{action.port}"
    options: Sequence[tuple[str, object]] = [
        ("grpc.primary_user_agent", USER_AGENT),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=action.service)
        try:
            response = await stub.Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            match error.code():
                case grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.UNAVAILABLE:
                    return False, f'timeout: failed to connect service "{address}" within {timeout_s:g}s'
                case grpc.StatusCode.UNIMPLEMENTED:
                    return False, "error: this server does not implement the grpc health protocol"
            return False, f"error: health rpc probe failed: {error.details()}"
    if response.status == health_pb2.HealthCheckResponse.SERVING:
        return True, "service healthy"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    return False, f'service unhealthy (responded with "{name}")'


def _reason(error: BaseException, address: str) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ConnectionRefusedError):
        return f"dial tcp {address}: connect: connection refused"
    if isinstance(error, OSError) and error.strerror:
        return f"dial tcp {address}: connect: {error.strerror.lower()}"
    return str(error) or type(error).__name__
