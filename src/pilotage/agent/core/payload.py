"""The files of configMap, secret, downwardAPI and projected volumes, as values.

Stands apart from `volumes` (which writes them) because choosing keys, paths and modes is pure. Bounds and path rules:
"Volumes" in the Kubernetes documentation.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pilotage.api.core_v1 import ConfigMap, DownwardAPIVolumeFile, KeyToPath, Secret
from pilotage.kit.errors import PilotageError


class PayloadError(PilotageError):
    """A referenced key does not exist, or a path leaves the volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a volume."""

    content: bytes
    mode: int
    uid: int | None = None  # its owner; None: the agent


Payload = dict[str, File]  # path relative to the volume → file


def config_map_data(config_map: ConfigMap) -> dict[str, bytes]:
    """Key → bytes of both data fields."""
    data = {key: value.encode() for key, value in config_map.data.items()}
    return data | {key: base64.b64decode(value) for key, value in config_map.binary_data.items()}


def secret_data(secret: Secret) -> dict[str, bytes]:
    """Key → decoded bytes."""
    return {key: base64.b64decode(value) for key, value in secret.data.items()}


def from_keys(
    data: Mapping[str, bytes], items: Sequence[KeyToPath], *, default_mode: int, optional: bool, source: str
) -> Payload:
    """All keys, or just `items` under their paths; `PayloadError` for a key that is neither there nor optional."""
    if not items:
        return {safe_path(key): File(content=value, mode=default_mode) for key, value in data.items()}
    payload: Payload = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise PayloadError(f"{source} references non-existent config key: {item.key}")
        mode = default_mode if item.mode is None else item.mode
        payload[safe_path(item.path)] = File(content=data[item.key], mode=mode)
    return payload


def from_downward(
    items: Sequence[DownwardAPIVolumeFile], value: Callable[[DownwardAPIVolumeFile], str], *, default_mode: int
) -> Payload:
    """One file a field; `value` resolves it."""
    return {
        safe_path(item.path): File(content=value(item).encode(), mode=default_mode if item.mode is None else item.mode)
        for item in items
    }


def safe_path(path: str) -> str:
    """`path` if it stays inside the volume; raises `PayloadError`."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise PayloadError(f"invalid path {path!r}: must be relative and must not contain '..'")
    return path
