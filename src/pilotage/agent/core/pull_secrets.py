"""imagePullSecrets as the one file of credentials that a pull may read.

Stands apart because secrets come in two shapes and several at a time. The first one that names a registry wins, as with
the kubelet's keyring. Called by `image_pull`, which writes the result where only the puller can read it. Source: "Pull
an Image from a Private Registry" in the Kubernetes documentation; containers-auth.json(5).
"""

import base64
import json
from collections.abc import Iterable
from typing import Any

from pilotage.api.core_v1 import Secret

CONFIG, LEGACY = ".dockerconfigjson", ".dockercfg"


def auth_file(secrets: Iterable[Secret]) -> bytes | None:
    """The file's contents; None without any usable credential. A secret that cannot be read counts as absent."""
    auths: dict[str, Any] = {}
    for secret in secrets:
        for registry, entry in _entries(secret).items():
            known = _known(entry)
            if known:
                auths.setdefault(_registry(registry), known)
    return json.dumps({"auths": auths}).encode() if auths else None


def _entries(secret: Secret) -> dict[str, Any]:
    try:
        if CONFIG in secret.data:
            found = json.loads(base64.b64decode(secret.data[CONFIG]))["auths"]
        elif LEGACY in secret.data:
            found = json.loads(base64.b64decode(secret.data[LEGACY]))
        else:
            return {}
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _known(entry: object) -> dict[str, str]:
    """`auth`, or made of `username` and `password`."""
    if not isinstance(entry, dict):
        return {}
    if entry.get("auth"):
        return {"auth": str(entry["auth"])}
    if entry.get("username"):
        pair = f"{entry['username']}:{entry.get('password', '')}"
        return {"auth": base64.b64encode(pair.encode()).decode()}
    return {}


def _registry(text: str) -> str:
    """`https://index.docker.io/v1/` → docker.io; a scheme and an API version mean nothing to a keyring."""
    name = text.partition("://")[2] if "://" in text else text
    name = name.rstrip("/")
    for version in ("/v1", "/v2"):
        name = name.removesuffix(version)
    return "docker.io" if name == "index.docker.io" else name
