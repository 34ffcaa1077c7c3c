"""Request bodies: read within the limit, decoded by their type.

Stands apart because every write needs it and nothing else should touch the stream. Raises ApiError for a body that is
too large (413), of an unknown type (415) or not what its type says (400).
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import yaml
from aiohttp import web

from pilotage.api import protobuf
from pilotage.api.codec import load_yaml
from pilotage.api.status import ApiError
from pilotage.apiserver.core.negotiation import BodyType, body_type

# kube-apiserver's limit for request bodies.
BODY_BYTES_MAX = 3 * 1024 * 1024
# YAML costs a hundred times what JSON does, and a few anchors can unfold without bound.
YAML_BYTES_MAX = 512 * 1024
# As deep as any document may be; a thousand levels overflow the loader's stack.
YAML_DEPTH_MAX = 200
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
# kube-apiserver's limit for a whole request.
READ_TIMEOUT_S = 60.0

_decode = msgspec.json.Decoder().decode


async def read(request: web.BaseRequest) -> bytes:
    """The whole body."""
    if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
        raise _too_large()
    if not request.body_exists:
        return b""
    if request.content.is_eof():  # It came with its head, as most do: no need for a timer.
        return _within_limit(request.content.read_nowait())
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError("Timeout", f"the body of the request did not arrive within {READ_TIMEOUT_S:.0f} s") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _within_limit(data: bytes) -> bytes:
    if len(data) > BODY_BYTES_MAX:
        raise _too_large()
    return data


def type_of(request: web.BaseRequest) -> BodyType:
    """What the Content-Type header announces."""
    header = request.headers.get("Content-Type", "")
    found = body_type(header)
    if found is None:
        raise ApiError(
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format ({header[:80]}) - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )
    return found


def decode(data: bytes, kind: BodyType) -> Any:
    """Bytes → JSON values."""
    # An applied configuration may be YAML, and nearly always is JSON.
    if kind is BodyType.YAML or (kind is BodyType.APPLY and data.lstrip()[:1] != b"{"):
        return _decode_yaml(data)
    if kind is BodyType.PROTOBUF:
        return _decode_protobuf(data)
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("BadRequest", f"the body is not valid JSON: {str(error)[:200]}") from error


def _decode_protobuf(data: bytes) -> Any:
    try:
        return protobuf.decode(data)
    except protobuf.UnknownKindError as error:
        raise ApiError("UnsupportedMediaType", f"{error}; send application/json") from error
    except protobuf.ProtobufError as error:
        raise ApiError("BadRequest", f"the body is not valid protobuf: {error}") from error


def _decode_yaml(data: bytes) -> Any:
    if len(data) > YAML_BYTES_MAX:
        raise ApiError("RequestEntityTooLarge", f"a YAML body may have at most {YAML_BYTES_MAX} bytes; send JSON")
    try:
        _check_tokens(data)
        documents = load_yaml(data)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise ApiError("BadRequest", f"the body is not valid YAML: {str(error)[:200]}") from error
    if len(documents) != 1:
        raise ApiError("BadRequest", f"the body must be one YAML document, found {len(documents)}")
    return documents[0]


def _check_tokens(data: bytes) -> None:
    """Refuse what must not be loaded: the scanner is a loop, but the loader recurses in C and would end the process."""
    depth = 0
    for token in yaml.scan(data, yaml.CSafeLoader):
        if isinstance(token, _OPENING):
            depth += 1
            if depth > YAML_DEPTH_MAX:
                raise ApiError("BadRequest", f"the body is nested more than {YAML_DEPTH_MAX} levels deep")
        elif isinstance(token, _CLOSING):
            depth -= 1
        elif isinstance(token, yaml.AliasToken):
            raise ApiError("BadRequest", "YAML aliases are not accepted in request bodies")


def _too_large() -> ApiError:
    return ApiError("RequestEntityTooLarge", f"request body too large: limit is {BODY_BYTES_MAX} bytes")
