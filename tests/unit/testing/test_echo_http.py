"""HTTP/1.1 messages of the echo server: parsing, bodies, bounds."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.testing.echo.http import (
    BODY_BYTES_MAX,
    HttpError,
    Request,
    Response,
    encode_request,
    encode_response,
    parse_head,
    read_request,
    read_response,
)


class _Sink:
    """The half of a writer that reading needs (100 Continue)."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def _reader(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def _request(data: bytes) -> Request | None:
    return await read_request(_reader(data), _Sink())  # type: ignore[arg-type]


async def test_a_request_is_taken_apart() -> None:
    request = await _request(
        b"POST /a/b?x=1&x=2&empty= HTTP/1.1\r\nHost: api\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert request == Request(
        method="POST",
        path="/a/b",
        query={"x": "2", "empty": ""},
        headers={"host": "api", "x-a": "1, 2", "content-length": "2"},
        body=b"hi",
        keep_alive=True,
    )


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", True, id="1.1 stays open"),
        pytest.param(b"GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", False, id="1.1 closes when asked"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", False, id="1.0 closes"),
        pytest.param(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", True, id="1.0 stays open when asked"),
    ],
)
async def test_persistence_follows_version_and_connection_header(head: bytes, keep_alive: bool) -> None:
    request = await _request(head)
    assert request is not None
    assert request.keep_alive is keep_alive


async def test_chunks_are_joined_and_the_next_message_follows() -> None:
    reader = _reader(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
        b"GET /next HTTP/1.1\r\n\r\n"
    )
    first = await read_request(reader, _Sink())  # type: ignore[arg-type]
    second = await read_request(reader, _Sink())  # type: ignore[arg-type]
    assert first is not None and first.body == b"abcde"
    assert second is not None and second.path == "/next"
    assert await read_request(reader, _Sink()) is None  # type: ignore[arg-type]


async def test_a_client_that_waits_for_permission_gets_it() -> None:
    sink = _Sink()
    await read_request(
        _reader(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"),
        sink,  # type: ignore[arg-type]
    )
    assert sink.written.startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET\r\n\r\n", HTTPStatus.BAD_REQUEST, id="one word"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, id="another version"),
        pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST, id="header without colon"),
        pytest.param(b"GET / HTTP/1.1\r\na : b\r\n\r\n", HTTPStatus.BAD_REQUEST, id="space before the colon"),
        pytest.param(b"GET //[ HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST, id="target that is no URL"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", HTTPStatus.BAD_REQUEST, id="negative length"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", HTTPStatus.BAD_REQUEST, id="body cut short"),
        pytest.param(b"GET / HTT", HTTPStatus.BAD_REQUEST, id="head cut short"),
        pytest.param(
            b"GET / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            id="announced body too large",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            id="chunk too large",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            HTTPStatus.BAD_REQUEST,
            id="chunk size no number",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, id="huge head"
        ),
    ],
)
async def test_bad_requests_are_refused_with_the_right_status(data: bytes, status: HTTPStatus) -> None:
    with pytest.raises(HttpError) as caught:
        await _request(data)
    assert caught.value.status == status


@given(st.binary(max_size=300))
def test_any_head_parses_or_is_refused(data: bytes) -> None:
    try:
        start, headers = parse_head(data)
    except HttpError:
        return
    assert len(start) >= 2
    assert all(name == name.lower() for name in headers)


async def test_what_the_server_writes_the_client_reads() -> None:
    data = encode_response(503, b'{"a": 1}', {"content-type": "application/json"})
    response = await read_response(_reader(b"HTTP/1.1 103 Early Hints\r\n\r\n" + data), method="GET")
    headers = {"content-length": "8", "content-type": "application/json"}
    assert response == Response(status=503, headers=headers, body=b'{"a": 1}')


async def test_a_head_answer_has_a_length_and_no_body() -> None:
    data = encode_response(200, b"12345", {}, head_only=True)
    response = await read_response(_reader(data), method="HEAD")
    assert response.headers["content-length"] == "5"
    assert response.body == b""


async def test_a_body_without_length_ends_with_the_connection() -> None:
    response = await read_response(_reader(b"HTTP/1.0 200 OK\r\n\r\nall of it"), method="GET")
    assert response.body == b"all of it"


async def test_what_the_client_writes_the_server_reads() -> None:
    request = await _request(encode_request("POST", "/x?y=z", {"host": "api"}, b"body"))
    assert request is not None
    assert (request.method, request.path, request.query, request.body) == ("POST", "/x", {"y": "z"}, b"body")
