"""DNS over TLS and over HTTPS: real handshakes, both HTTP versions, limits, renewal, and zone transfer by stream."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import dns.rcode
import dns.xfr
import dns.zone
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from yarl import URL

from pilotage.dns import doh
from pilotage.kit.errors import UsageError
from pilotage.testing.certificates import write_certificate

NAME = "web.default.svc.cluster.local."
MEDIA_TYPE = "application/dns-message"


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


def query(name: str = NAME, **options: Any) -> bytes:
    return dns.message.make_query(name, "A", id=0, **options).to_wire()


def addresses(wire: bytes) -> list[str]:
    return [str(r) for rrset in dns.message.from_wire(wire).answer for r in rrset]


@pytest.fixture
async def server(start: Any, tmp_path: Path) -> AsyncIterator[Any]:
    files = write_certificate(tmp_path)
    async with start(listen_tls=("127.0.0.1:0",), listen_https=("127.0.0.1:0",), **files) as running:
        yield running


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_many_questions_in_one_tls_connection(server: Any) -> None:
    (host, port) = server.server.secure.tls[0]
    reader, writer = await asyncio.open_connection(host, port, ssl=trusting("dot"))
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "dot"
    for _ in range(50):
        writer.write(len(query()).to_bytes(2, "big") + query())
    async with asyncio.timeout(10):
        for _ in range(50):
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert addresses(reply) == ["10.96.0.20"]
    writer.close()


async def test_dnspython_asks_by_tls(server: Any) -> None:
    (host, port) = server.server.secure.tls[0]
    asked = dns.message.make_query("big.default.svc.cluster.local.", "A")
    response = await dns.asyncquery.tls(asked, host, timeout=10, port=port, ssl_context=trusting("dot"))
    assert len(response.answer[0]) == 100


async def test_a_handshake_that_fails_disturbs_nobody(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    for host, port in (*server.server.secure.tls, *server.server.secure.https):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"HTTP" not in await reader.read()  # perhaps an alert
        writer.close()
    await test_many_questions_in_one_tls_connection(server)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_renewed_certificate_is_used_by_the_next_handshake(server: Any, tmp_path: Path) -> None:
    (host, port) = server.server.secure.tls[0]
    before = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
    (tmp_path / "tls.crt").write_text("half a certi")
    server.server.secure.look()
    assert await asyncio.to_thread(ssl.get_server_certificate, (host, port)) == before
    write_certificate(tmp_path, "renewed")
    for name in ("tls.crt", "tls.key"):
        os.utime(tmp_path / name, (1_000_000, 1_000_000))  # however coarse the file system's clock
    server.server.secure.look()
    assert await asyncio.to_thread(ssl.get_server_certificate, (host, port)) != before


async def test_without_a_readable_certificate_there_is_no_server(start: Any, tmp_path: Path) -> None:
    for files in ({}, {"certificate": str(tmp_path / "no"), "key": str(tmp_path / "no")}):
        with pytest.raises(UsageError, match="certificate"):
            async with start(listen_tls=("127.0.0.1:0",), **files):
                pass


# ── HTTPS ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def http1(server: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    (host, port) = server.server.secure.https[0]
    connector = aiohttp.TCPConnector(ssl=trusting("http/1.1"), limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session, f"https://{host}:{port}/dns-query"


async def test_http1_by_post_and_get_in_one_connection(server: Any) -> None:
    async with http1(server) as (session, url):
        for _ in range(3):
            async with session.post(url, data=query(), headers={"content-type": MEDIA_TYPE}) as response:
                assert (response.status, response.content_type) == (200, MEDIA_TYPE)
                assert response.headers["cache-control"] == "max-age=5"
                assert addresses(await response.read()) == ["10.96.0.20"]
            text = base64.urlsafe_b64encode(query()).rstrip(b"=").decode()
            async with session.get(url, params={"dns": text}) as response:
                assert addresses(await response.read()) == ["10.96.0.20"]


async def test_a_negative_answer_may_be_cached_as_long_as_its_soa_says(server: Any) -> None:
    async with http1(server) as (session, url):
        data = query("nothing.default.svc.cluster.local.")
        async with session.post(url, data=data, headers={"content-type": MEDIA_TYPE}) as response:
            assert response.headers["cache-control"] == "max-age=5"
            assert dns.message.from_wire(await response.read()).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("method", "path", "media_type", "body", "status"),
    [
        pytest.param("POST", "/dns-query", "text/plain", query(), 415, id="another media type"),
        pytest.param("POST", "/dns-query", MEDIA_TYPE, b"", 400, id="empty body"),
        pytest.param("POST", "/dns-query", MEDIA_TYPE, b"x" * 5_000, 413, id="longer than any query"),
        pytest.param("POST", "/dns-query", MEDIA_TYPE, b"\0\0\x80" + b"\0" * 20, 400, id="an answer"),
        pytest.param("PUT", "/dns-query", MEDIA_TYPE, query(), 405, id="another method"),
        pytest.param("GET", "/dns-query", "", b"", 400, id="no query"),
        pytest.param("GET", "/dns-query?dns=%ff", "", b"", 400, id="no base64"),
        pytest.param("GET", "/dns-query?dns=AAAA&dns=AAAA", "", b"", 400, id="two queries"),
        pytest.param("GET", "/other?dns=AAAA", "", b"", 404, id="another path"),
        pytest.param("GET", "/dns-query?dns=" + "A" * 7_000, "", b"", 414, id="a URL without end"),
    ],
)
async def test_requests_that_hold_no_query_say_why(
    server: Any, method: str, path: str, media_type: str, body: bytes, status: int
) -> None:
    async with http1(server) as (session, url):
        headers = {"content-type": media_type} if media_type else {}
        target = url.removesuffix("/dns-query") + path
        async with session.request(method, URL(target, encoded=True), data=body or None, headers=headers) as response:
            assert response.status == status
    (stream, answer) = (await http2(server, [(method, path, media_type, body)]))[0]
    assert (stream, answer[0]) == (1, str(status))


async def http2(server: Any, requests: list[tuple[str, str, str, bytes]]) -> list[tuple[int, tuple[str, bytes]]]:
    """All at once in one connection; status and body by stream."""
    (host, port) = server.server.secure.https[0]
    reader, writer = await asyncio.open_connection(host, port, ssl=trusting("h2"))
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    found: dict[int, list[Any]] = {}
    for method, path, media_type, body in requests:
        stream = connection.get_next_available_stream_id()
        found[stream] = ["", b"", False]
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        fields += [("content-type", media_type)] if media_type else []
        connection.send_headers(stream, fields, end_stream=not body)
        if body:
            connection.send_data(stream, body, end_stream=True)
    async with asyncio.timeout(10):
        while not all(done for _, _, done in found.values()):
            writer.write(connection.data_to_send())
            data = await reader.read(65_536)
            if not data:
                raise ConnectionResetError("closed by the server")
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        found[event.stream_id][0] = dict(event.headers)[":status"]
                    case h2.events.DataReceived():
                        found[event.stream_id][1] += event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded():
                        found[event.stream_id][2] = True
                    case h2.events.ConnectionTerminated():
                        raise ConnectionResetError(event.error_code)
    writer.close()
    return [(stream, (status, body)) for stream, (status, body, _) in found.items()]


async def test_http2_answers_many_requests_at_once(server: Any) -> None:
    big = "/dns-query?dns=" + base64.urlsafe_b64encode(query("big.default.svc.cluster.local.")).decode().rstrip("=")
    asked = [("POST", "/dns-query", MEDIA_TYPE, query()), ("GET", big, "", b"")] * 15
    found = await http2(server, asked)
    assert {status for _, (status, _) in found} == {"200"}
    assert [len(addresses(body)) for _, (_, body) in found] == [1, 100] * 15


async def test_more_requests_at_once_than_allowed_end_the_connection(server: Any) -> None:
    asked = [("POST", "/dns-query", MEDIA_TYPE, query())] * (doh.STREAMS_MAX + 70)
    with pytest.raises((ConnectionError, h2.exceptions.ProtocolError)):
        await http2(server, asked)
    assert len(await http2(server, asked[:3])) == 3


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_idle_and_broken_connections_are_closed(
    server: Any, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(doh, "IDLE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(doh, "MESSAGE_TIMEOUT_S", 0.1)
    (host, port) = server.server.secure.https[0]
    beginnings = [b"", b"\xff" * 100, b"GET /", b"POST /dns-query HTTP/1.1\r\ncontent-length: 20\r\n\r\nabc"]
    for beginning in [
        *beginnings,
        b"x: y\r\n" * 9_000,
        b"one two\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ]:
        reader, writer = await asyncio.open_connection(host, port, ssl=trusting(protocol))
        writer.write(beginning)
        async with asyncio.timeout(10):
            try:
                while await reader.read(65_536):
                    pass
            except OSError:
                pass  # closed with bytes unread
        writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_https_connections_are_bounded(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doh, "CONNECTIONS_MAX", 1)
    (host, port) = server.server.secure.https[0]
    reader, writer = await asyncio.open_connection(host, port, ssl=trusting("http/1.1"))
    writer.write(b"GET /dns-query HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        other, second = await asyncio.open_connection(host, port, ssl=trusting("http/1.1"))
        assert await other.read() == b""
    second.close()
    writer.close()


# ── transfer ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_allowed_peer_copies_the_zone(start: Any) -> None:
    async with start(transfer_to=("127.0.0.1",)) as server:
        zone = dns.zone.Zone("cluster.local.")
        await dns.asyncquery.inbound_xfr(server.address.host, zone, port=server.address.port, lifetime=10)
        assert str(zone.find_rdataset("web.default.svc", "A")[0]) == "10.96.0.20"
        assert len(zone.find_rdataset("big.default.svc", "A")) == 100
        assert (await server.ask("web.default.svc", tcp=True)).answer


@pytest.mark.parametrize("allowed", [(), ("192.0.2.0/24",)])
async def test_nobody_else_does(start: Any, allowed: tuple[str, ...]) -> None:
    async with start(transfer_to=allowed) as server:
        zone = dns.zone.Zone("cluster.local.")
        with pytest.raises(dns.xfr.TransferError):
            await dns.asyncquery.inbound_xfr(server.address.host, zone, port=server.address.port, lifetime=10)


async def test_two_processes_may_share_a_port(start: Any) -> None:
    async with start(reuse_port=True) as first, start(listen=(str(first.address),), reuse_port=True) as second:
        assert second.address == first.address
        for _ in range(10):
            assert (await first.ask("web.default.svc")).answer
            assert (await first.ask("web.default.svc", tcp=True)).answer
