"""Calling another server: http, https, grpc, grpcs, tcp and udp URLs, each to one JSON outcome.

Used by the server (`--call`, so that answers nest) and by `pilotage-echo call`. An outcome never raises: whatever went
wrong is its `error`, because a broken link of the chain is exactly what the caller wants to see.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from pilotage.testing.echo.http import HttpError, encode_request, read_response
from pilotage.testing.echo.identity import Json

if TYPE_CHECKING:
    import ssl

DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One thing to ask. `url` is checked by `parse`."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    connect: str = ""
    """`address:port` to dial instead of the URL's (the URL still names host, SNI and authority); empty: the URL's."""
    ca_file: str = ""
    """PEM roots for https and grpcs; empty: the system's."""
    timeout_s: float = 5.0

    def parse(self) -> tuple[SplitResult, str, int]:
        """The URL, and the host and port to dial. Raises `ValueError` with a message for the user."""
        url = urlsplit(self.url)
        if url.scheme not in (*DEFAULT_PORTS, "tcp", "udp"):
            raise ValueError(f"{self.url!r}: use http, https, grpc, grpcs, tcp or udp")
        if not url.hostname:
            raise ValueError(f"{self.url!r}: no host")
        if self.connect:
            host, separator, port_text = self.connect.rpartition(":")
            if not separator or not port_text.isdecimal():
                raise ValueError(f"{self.connect!r}: expected ADDRESS:PORT")
            return url, host.strip("[]"), int(port_text)
        port = url.port or DEFAULT_PORTS.get(url.scheme)
        if port is None:
            raise ValueError(f"{self.url!r}: no port")
        return url, url.hostname, port


async def perform(call: Call) -> Json:
    """Ask once. The outcome has `url`, `address`, `duration_ms`, and `status` with `answer`, or `error`."""
    started = time.perf_counter()
    outcome: Json = {"url": call.url}
    try:
        async with asyncio.timeout(call.timeout_s):
            url, host, port = call.parse()
            match url.scheme:
                case "http" | "https":
                    outcome |= await _http(call, url, host, port)
                case "grpc" | "grpcs":
                    outcome |= await _grpc(call, url, host, port)
                case "tcp":
                    outcome |= await _tcp(call, host, port)
                case _:
                    outcome |= await _udp(call, host, port)
    except TimeoutError:
        outcome["error"] = f"no answer within {call.timeout_s:g} s"
    except (OSError, ValueError, HttpError, EOFError) as error:
        outcome["error"] = f"{type(error).__name__}: {error}"[:500]
    outcome["duration_ms"] = round((time.perf_counter() - started) * 1000, 3)
    return outcome


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body[:2000].decode("utf-8", "replace")


def _peer(writer: asyncio.StreamWriter) -> str:
    return format_address(writer.get_extra_info("peername"))


def format_address(address: object) -> str:
    """A socket address as `host:port`, IPv6 in brackets, IPv4-mapped addresses as IPv4."""
    if not isinstance(address, tuple) or len(address) < 2:
        return ""
    host = str(address[0]).removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def _tls(call: Call) -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(cafile=call.ca_file or None)


async def _http(call: Call, url: SplitResult, host: str, port: int) -> Json:
    context = _tls(call) if url.scheme == "https" else None
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=url.hostname if context else None
    )
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"host": url.netloc.rpartition("@")[2], "user-agent": "pilotage-echo", "connection": "close"}
        headers |= {name.lower(): value for name, value in call.headers.items()}
        writer.write(encode_request(call.method, target, headers, call.body))
        await writer.drain()
        response = await read_response(reader, method=call.method)
        return {"address": _peer(writer), "status": response.status, "answer": _decoded(response.body)}
    finally:
        writer.close()


async def _grpc(call: Call, url: SplitResult, host: str, port: int) -> Json:
    from pilotage.testing.echo import grpc_echo

    # grpc would resolve by itself and hide the address; the system's resolver is what the chain wants to show.
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    address = format_address(found[0][4])
    message = json.loads(call.body) if call.body else {}
    if not isinstance(message, dict):
        raise ValueError("a gRPC message is a JSON object")
    roots = await asyncio.to_thread(_read, call.ca_file) if call.ca_file else None
    status, answer = await grpc_echo.call(
        address,
        authority=url.netloc,
        message=message,
        roots=roots,
        secure=url.scheme == "grpcs",
        timeout_s=call.timeout_s,
    )
    if status != "OK":
        return {"address": address, "status": status, "error": answer["error"]}
    return {"address": address, "status": status, "answer": answer}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(ANSWER_BYTES_MAX)


async def _tcp(call: Call, host: str, port: int) -> Json:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write((call.body or b"hello") + b"\n")
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise EOFError("connection closed without an answer")
        return {"address": _peer(writer), "answer": _decoded(line)}
    finally:
        writer.close()


class _Question(asyncio.DatagramProtocol):
    """One datagram out, the first one back."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _udp(call: Call, host: str, port: int) -> Json:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(_Question, remote_addr=(host, port))
    try:
        transport.sendto(call.body or b"hello")
        return {
            "address": format_address(transport.get_extra_info("peername")),
            "answer": _decoded(await protocol.answer),
        }
    finally:
        transport.close()
