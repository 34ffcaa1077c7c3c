"""The framing of exec, attach and port-forward on a WebSocket: the first byte of a message names a channel.

Stands apart because it is a protocol, with versions. Pure: bytes in, messages out. Source: KEP-4006,
subprotocols `v4.channel.k8s.io` and `v5.channel.k8s.io` (which adds closing one channel).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
MESSAGE_BYTES_MAX = 1 << 20


class Channel(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3  # the final Status
    RESIZE = 4
    CLOSE = 255  # v5: the payload's first byte is the channel that is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Bytes for standard input."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InputClosed:
    """Standard input has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """The user's terminal has a new size."""

    columns: int
    rows: int


class _Size(msgspec.Struct, frozen=True):
    Width: int
    Height: int


def decode(message: bytes) -> Input | InputClosed | Resized | None:
    """A message of the client; None for one that means nothing here (empty first frames, other channels)."""
    if len(message) < 2:
        return None
    channel, payload = message[0], message[1:]
    if channel == Channel.STDIN:
        return Input(data=payload)
    if channel == Channel.CLOSE and payload[0] == Channel.STDIN:
        return InputClosed()
    if channel == Channel.RESIZE:
        try:
            size = msgspec.json.decode(payload, type=_Size)
        except msgspec.DecodeError:
            return None
        # The kernel keeps both in 16 bits.
        return Resized(columns=max(0, min(size.Width, 65535)), rows=max(0, min(size.Height, 65535)))
    return None


def encode(channel: Channel | int, payload: bytes) -> bytes:
    """One message."""
    return bytes([channel]) + payload


def final_status(exit_code: int) -> bytes:
    """The last message: how the command ended."""
    status: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if exit_code != 0:
        status = {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {exit_code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
        }
    return encode(Channel.ERROR, msgspec.json.encode(status))


def failure(message: str) -> bytes:
    """The last message when the command could not be run."""
    status = {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
    return encode(Channel.ERROR, msgspec.json.encode(status))
