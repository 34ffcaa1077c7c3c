"""DNS over HTTPS: HTTP/2, which RFC 8484 §5.2 recommends, and HTTP/1.1, which every library speaks.

The sans-I/O `h2` does the framing of the former; of the latter a request line, header fields and a body of known length
are read here, in forty lines, since a web framework would bring more than it saves. Bounded like `tcp`: connections,
requests under way, sizes, and every wait. What a request means is decided in `core.https`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pilotage.dns.core.https import MESSAGE_BYTES_MAX, Refusal, read_request, response_fields
from pilotage.dns.metrics import CONNECTIONS, DROPPED, QUERIES
from pilotage.dns.resolver import Pending, Resolver
from pilotage.dns.tcp import CONNECTIONS_MAX, IDLE_TIMEOUT_S, MESSAGE_TIMEOUT_S
from pilotage.kit.tasks import TaskSet, task_set

STREAMS_MAX = 32
"""Requests under way per connection."""
TASKS_MAX = 4 * STREAMS_MAX
"""Answers under way, counting those of streams that the peer has reset (CVE-2023-44487)."""
READ_BYTES = 65_536
HEAD_BYTES_MAX = 16_384
"""Of a request's line and fields."""


@dataclass(slots=True)
class _Stream:
    """One HTTP/2 request: what has come of it, then what has yet to go."""

    fields: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)
    unsent: bytes | None = None


class HttpsListener:
    """Serves accepted connections, after the handshake."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._open = 0
        self.leaving = False
        self._cluster, self._upstream = (QUERIES.labels("https", by) for by in ("cluster", "upstream"))

    def leave(self) -> None:
        """Connections end after their next reply, unless another request is under way."""
        self.leaving = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends, is idle, or breaks a rule."""
        if self._open >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open += 1
        CONNECTIONS.set(self._open)
        security = writer.get_extra_info("ssl_object")
        speaks_h2 = security is not None and security.selected_alpn_protocol() == "h2"
        try:
            async with task_set() as tasks:
                if speaks_h2:
                    await _Http2(self, reader, writer, tasks).run()
                else:
                    await self._http1(reader, writer)
                tasks.cancel_all()
        except* (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # the peer left, is too slow, or speaks something else: there is nobody to tell
        finally:
            self._open -= 1
            CONNECTIONS.set(self._open)
            writer.close()

    async def reply(self, request: bytes | Refusal, client: str) -> bytes | Refusal:
        """The DNS message that answers."""
        if isinstance(request, Refusal):
            DROPPED.inc()
            return request
        result = self._resolver.now(request, stream=True, client=client)
        if isinstance(result, Pending):
            self._upstream.inc()
            return await self._resolver.later(result, stream=True)
        if result is None:
            DROPPED.inc()
            return Refusal(400)
        self._cluster.inc()
        return result

    async def _http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests one after another (RFC 9112). Raises `ValueError` for what is no HTTP."""
        client = _host(writer)
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            if len(head) > HEAD_BYTES_MAX:
                raise ValueError("header fields too long")
            line, *rest = head[:-4].decode("latin-1").split("\r\n")
            method, target, version = line.split(" ")
            fields = {name.strip().lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
            length = int(fields.get("content-length", "0"))
            if "transfer-encoding" in fields or not 0 <= length <= MESSAGE_BYTES_MAX:
                reply: bytes | Refusal = Refusal(413)
                last = True  # where the body ends is not known, or not worth waiting for
            else:
                async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                    body = await reader.readexactly(length)
                reply = await self.reply(read_request(method, target, fields.get("content-type", ""), body), client)
                last = version != "HTTP/1.1" or fields.get("connection", "").lower() == "close" or self.leaving
            writer.write(_http1_response(reply, last=last))
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                await writer.drain()
            if last:
                return


def _http1_response(reply: bytes | Refusal, *, last: bool) -> bytes:
    refused = isinstance(reply, Refusal)
    status = HTTPStatus(reply.status if refused else 200)  # type: ignore[union-attr]  # bytes: not refused
    fields = [("content-length", "0")] if isinstance(reply, Refusal) else response_fields(reply)
    if last:
        fields.append(("connection", "close"))
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return head.encode("ascii") + b"\r\n" + (b"" if isinstance(reply, Refusal) else reply)


def _host(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return str(name[0]) if name else ""


class _Http2:
    """One HTTP/2 connection (RFC 9113)."""

    def __init__(
        self, listener: HttpsListener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tasks: TaskSet
    ) -> None:
        import h2.config  # a twentieth of a second to import, and few servers speak HTTPS
        import h2.connection
        import h2.settings

        self._listener, self._reader, self._writer, self._tasks = listener, reader, writer, tasks
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._connection = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self._connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX, codes.MAX_HEADER_LIST_SIZE: HEAD_BYTES_MAX},
        )
        self._streams: dict[int, _Stream] = {}
        self._client = _host(writer)

    async def run(self) -> None:
        """Until the peer ends it. Raises `ValueError` when it breaks the protocol."""
        try:
            await self._converse()
        finally:
            self._end()

    async def _converse(self) -> None:
        import h2.exceptions

        self._connection.initiate_connection()
        await self._flush()
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                data = await self._reader.read(READ_BYTES)
            if not data:
                return
            try:
                for event in self._connection.receive_data(data):
                    self._handle(event)
            except h2.exceptions.ProtocolError as error:
                await self._flush()  # h2 has written the GOAWAY
                raise ValueError("not HTTP/2") from error
            await self._flush()

    def _handle(self, event: object) -> None:
        import h2.events

        match event:
            case h2.events.RequestReceived(stream_id=int(stream), headers=list(fields)):
                self._streams[stream] = _Stream({str(name): str(value) for name, value in fields})
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data)):
                self._connection.acknowledge_received_data(event.flow_controlled_length, stream)
                if (held := self._streams.get(stream)) is not None:
                    held.body += data[: MESSAGE_BYTES_MAX + 1 - len(held.body)]  # one more tells that it is too long
            case h2.events.StreamEnded(stream_id=int(stream)) if stream in self._streams:
                if len(self._tasks) >= TASKS_MAX:
                    raise ValueError("requests are reset and sent again faster than they are answered")
                self._tasks.start(self._answer(stream, self._streams[stream]))
            case h2.events.StreamReset(stream_id=int(stream)):
                self._streams.pop(stream, None)
            case h2.events.WindowUpdated():
                for stream in [*self._streams]:
                    self._send_on(stream)

    async def _answer(self, stream: int, held: _Stream) -> None:
        fields = held.fields
        request = read_request(
            fields.get(":method", ""), fields.get(":path", ""), fields.get("content-type", ""), bytes(held.body)
        )
        reply = await self._listener.reply(request, self._client)
        if self._streams.get(stream) is not held:
            return  # reset meanwhile
        if isinstance(reply, Refusal):
            del self._streams[stream]
            self._connection.send_headers(stream, [(":status", str(reply.status))], end_stream=True)
        else:
            held.unsent = reply
            self._connection.send_headers(stream, [(":status", "200"), *response_fields(reply)])
            self._send_on(stream)
        await self._flush()
        if self._listener.leaving and not self._streams:
            self._end()

    def _end(self) -> None:
        """GOAWAY tells the peer which of its requests it may send again elsewhere (RFC 9113 §6.8)."""
        if not self._writer.is_closing():
            self._connection.close_connection()
            self._writer.write(self._connection.data_to_send())
            self._writer.close()

    def _send_on(self, stream: int) -> None:
        """As much of the reply as the peer's window takes; the rest when it opens."""
        held = self._streams[stream]
        while held.unsent is not None:
            connection = self._connection
            room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
            piece, held.unsent = held.unsent[:room], held.unsent[room:]
            if not held.unsent:
                connection.send_data(stream, piece, end_stream=True)
                del self._streams[stream]
                return
            if not piece:
                return
            connection.send_data(stream, piece)

    async def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data:
            self._writer.write(data)
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                await self._writer.drain()
