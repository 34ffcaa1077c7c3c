"""etcd by its JSON gateway: its messages, one call, one watch.

Apart from the backend because it is about connections and bytes: which of etcd's endpoints is asked, what counts as no
answer, what the messages look like. Revisions are as etcd counts them, and nothing is known here of histories and
watchers. An endpoint that does not answer goes to the end of the row; whoever asked decides whether to ask again.

Specification: etcd v3 API and its gRPC gateway (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/).
"""

from __future__ import annotations

import base64
import io
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec

from pilotage.storage.errors import TooLargeError, UnavailableError

BODY_BYTES_WHOLE_MAX = 512 * 1024
REQUEST_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 2.0
# Requests on their way to etcd at once; more wait their turn. The watch has a connection of its own.
REQUESTS_MAX = 128
# gRPC status codes, as the gateway passes them on.
_INVALID_ARGUMENT, OUT_OF_RANGE = 3, 11

T = TypeVar("T")


class Header(msgspec.Struct):
    revision: int = 0


class Stored(msgspec.Struct):
    """A key and what is kept under it; of a deleted one the key and the revision of its deletion."""

    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


class RangeAnswer(msgspec.Struct):
    header: Header = msgspec.field(default_factory=Header)
    kvs: tuple[Stored, ...] = ()
    more: bool = False


class Part(msgspec.Struct):
    response_range: RangeAnswer | None = None


class TxnAnswer(msgspec.Struct):
    header: Header
    succeeded: bool = False
    responses: tuple[Part, ...] = ()


class LeaseAnswer(msgspec.Struct):
    id: int = msgspec.field(name="ID")


class Change(msgspec.Struct):
    kv: Stored
    type: str = "PUT"


class Changes(msgspec.Struct):
    """One message of a watch: changes in order of revision, or word of the watch itself."""

    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[Change, ...] = ()


class _Refusal(msgspec.Struct):
    message: str = ""
    code: int = 0


class _Line(msgspec.Struct):
    """One line of a watch."""

    result: Changes | None = None
    error: _Refusal | None = None


class AnyAnswer(msgspec.Struct):
    """Whose contents do not matter."""


# The gateway writes 64-bit numbers as strings, as proto3's JSON mapping says.
_decode_line = msgspec.json.Decoder(_Line, strict=False).decode
_encode = msgspec.json.Encoder().encode


class Gateway:
    """The endpoints of one etcd cluster. Open it with `await Gateway.open(url)`."""

    def __init__(self, session: aiohttp.ClientSession, endpoints: Sequence[str]) -> None:
        self._session = session
        self._endpoints = deque(endpoints)  # the first is asked; one that does not answer goes to the end

    @classmethod
    async def open(cls, url: str) -> tuple[Gateway, int]:
        """Connect to `http[s]://host:port[,host:port…]`, with `?ca=FILE&cert=FILE&key=FILE` for TLS.

        With it comes the revision at which etcd stands.
        Raises ValueError for a malformed URL, UnavailableError when nobody answers.
        """
        endpoints, tls = _parsed(url)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=REQUESTS_MAX, ssl=tls or True),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
        )
        try:
            for endpoint in endpoints:
                try:
                    found = await _call(session, endpoint, "kv/range", everything(count_only=True), RangeAnswer)
                except UnavailableError:
                    if endpoint == endpoints[-1]:
                        raise
                    continue
                return cls(session, endpoints), found.header.revision
            raise AssertionError("unreachable")
        except BaseException:
            await session.close()
            raise

    async def aclose(self) -> None:
        """Drop every connection."""
        await self._session.close()

    async def call(self, path: str, asked: object, type_: type[T]) -> T:
        """Ask once. Raises RefusedError for a no, TooLargeError, UnavailableError when there is no answer."""
        endpoint = self._endpoints[0]
        try:
            return await _call(self._session, endpoint, path, asked, type_)
        except RefusedError:
            raise
        except UnavailableError:
            self._leave(endpoint)
            raise

    async def changes(self, start_revision: int) -> AsyncIterator[Changes]:
        """One connection's worth of changes from that revision on. Raises UnavailableError at its end."""
        asked = {"create_request": {**everything(), "start_revision": str(start_revision), "progress_notify": True}}
        endpoint = self._endpoints[0]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(f"{endpoint}/v3/watch", data=_encode(asked), timeout=timeout) as response:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        read = _decode_line(line)
                        if read.result is None:
                            raise UnavailableError(f"etcd ends its watch: {read.error}")
                        yield read.result
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            self._leave(endpoint)
            raise UnavailableError(f"the watch of etcd broke: {error!r:.200}") from error
        raise UnavailableError("etcd has ended its watch")

    def _leave(self, endpoint: str) -> None:
        if self._endpoints[0] == endpoint:
            self._endpoints.rotate(-1)


class RefusedError(UnavailableError):
    """etcd answered, and said no."""

    def __init__(self, refusal: _Refusal) -> None:
        super().__init__(f"etcd refuses: {refusal.message[:200]}")
        self.code = refusal.code


async def _call(session: aiohttp.ClientSession, endpoint: str, path: str, asked: object, type_: type[T]) -> T:
    body = _encode(asked)
    try:
        # aiohttp wants large bodies as files, which it sends piece by piece.
        data = io.BytesIO(body) if len(body) > BODY_BYTES_WHOLE_MAX else body
        async with session.post(f"{endpoint}/v3/{path}", data=data) as response:
            answer = await response.read()
        if response.status == 200:
            return msgspec.json.decode(answer, type=type_, strict=False)
        refusal = msgspec.json.decode(answer, type=_Refusal)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        raise UnavailableError(f"etcd does not answer: {error!r:.200}") from error
    if refusal.code == _INVALID_ARGUMENT and "too large" in refusal.message:
        raise TooLargeError(refusal.message[:200])
    raise RefusedError(refusal)


def _parsed(url: str) -> tuple[list[str], ssl.SSLContext | None]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{url!r} is not http[s]://host:port[,host:port…]")
    endpoints = [f"{parts.scheme}://{host}" for host in parts.netloc.split(",") if host]
    files = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    if unknown := files.keys() - {"ca", "cert", "key"}:
        raise ValueError(f"unknown options of etcd: {', '.join(sorted(unknown))}; known are ca, cert and key")
    if parts.scheme == "http":
        return endpoints, None
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            context.load_cert_chain(files["cert"], files.get("key"))
    except OSError as error:
        raise UnavailableError(f"cannot read the certificates for etcd: {error}") from error
    return endpoints, context


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def everything(**more: object) -> dict[str, object]:
    """Every key there is: from the smallest on, without end."""
    return {"key": base64_of(b"\0"), "range_end": base64_of(b"\0"), **more}
