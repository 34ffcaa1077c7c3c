"""The gRPC face: `pilotage.echo.v1.Echo` with JSON messages, and the standard health service.

JSON instead of protobuf because nothing then has to be generated, and any gRPC proxy treats the bytes alike. Apart from
the rest because importing grpc costs more than all else together: `server` and `upstream` import this only when asked.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import unquote

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pilotage.testing.echo.identity import Identity, Json

SERVICE = "pilotage.echo.v1.Echo"
STREAM_ANSWERS_MAX = 1000


def _decode(data: bytes) -> Json:
    try:
        value = json.loads(data) if data else {}
    except ValueError:
        value = {"malformed": data[:200].decode("utf-8", "replace")}
    return value if isinstance(value, dict) else {"value": value}


def _encode(value: Json) -> bytes:
    return json.dumps(value).encode()


class GrpcEcho:
    """One h2c server with `Call` (one answer) and `Stream` (`count` answers)."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._server = grpc.aio.server()
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        handlers = {
            "Call": grpc.unary_unary_rpc_method_handler(
                self._call, request_deserializer=_decode, response_serializer=_encode
            ),
            "Stream": grpc.unary_stream_rpc_method_handler(
                self._stream, request_deserializer=_decode, response_serializer=_encode
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, address: str) -> int:
        """Listen on `address` and report healthy; returns the port."""
        port: int = self._server.add_insecure_port(address)
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self) -> None:
        """Report NOT_SERVING, for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls (GOAWAY) and wait up to `grace_s` for the open ones."""
        await self._server.stop(grace_s)

    def _answer(self, request: Json, context: grpc.aio.ServicerContext, method: str) -> Json:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return {
            "answered_by": self._identity.as_json(),
            "protocol": "grpc",
            "request": {
                "method": f"/{SERVICE}/{method}",
                "metadata": metadata,
                "remote": _address(context.peer()),
                "message": request,
            },
        }

    async def _call(self, request: Json, context: grpc.aio.ServicerContext) -> Json:
        return self._answer(request, context, "Call")

    async def _stream(self, request: Json, context: grpc.aio.ServicerContext) -> AsyncIterator[Json]:
        count = request.get("count", 1)
        for index in range(min(count, STREAM_ANSWERS_MAX) if isinstance(count, int) else 1):
            yield {**self._answer(request, context, "Stream"), "index": index}


def _address(peer: str) -> str:
    """`ipv4:10.0.0.1:443` and `ipv6:[::1]:443` as other protocols write them."""
    return unquote(peer).partition(":")[2] or peer


async def call(
    address: str, *, authority: str, message: Json, roots: bytes | None, secure: bool, timeout_s: float
) -> tuple[str, Json]:
    """One `Call` to `address`; returns the status code's name and the answer, or the error's text."""
    options = [("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0)]
    if secure:
        name = authority.rpartition(":")[0] or authority
        options.append(("grpc.ssl_target_name_override", name))
        credentials = grpc.ssl_channel_credentials(roots)
        channel = grpc.aio.secure_channel(address, credentials, options=options)
    else:
        channel = grpc.aio.insecure_channel(address, options=options)
    async with channel:
        method = channel.unary_unary(f"/{SERVICE}/Call", request_serializer=_encode, response_deserializer=_decode)
        try:
            answer: Json = await method(message, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return error.code().name, {"error": (error.details() or "")[:500]}
    return "OK", answer
