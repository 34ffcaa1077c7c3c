"""Image names: what a reference means, and whether an image may be pulled.

Stands apart because status messages, the image store and the pull all read references. Source: the distribution
reference grammar; imagePullPolicy in "Images" of the Kubernetes documentation. Leaves out fetching (`images`).
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from pilotage.kit.errors import PilotageError

# The node's own file system as an image: no registry, no archive, always present.
HOST_IMAGE = "localhost/host"

_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9-]+)*(?::\d{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_LOOPBACK = re.compile(r"127(?:\.\d{1,3}){3}", re.ASCII)
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")


class InvalidImageNameError(PilotageError):
    """The text is no image reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """A reference with its defaults filled in. Exactly one of `tag` and `digest` is used to look an image up."""

    domain: str
    path: str
    tag: str
    digest: str = ""  # wins over the tag

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def is_host(self) -> bool:
        return self.repository == HOST_IMAGE

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse(text: str) -> ImageName:
    """`nginx` → docker.io/library/nginx:latest; raises `InvalidImageNameError`."""
    rest, _, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        domain, remainder = head, tail
    else:
        domain, remainder = "docker.io", rest
    path, _, tag = remainder.partition(":")
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    valid = (
        _DOMAIN.fullmatch(domain)
        and _PATH.fullmatch(path)
        and len(path) <= 255
        and (not tag or _TAG.fullmatch(tag))
        and (not digest or _DIGEST.fullmatch(digest))
        and not ("@" in text and not digest)
        and not (remainder.endswith(":"))
    )
    if not valid:
        raise InvalidImageNameError(f'couldn\'t parse image name "{text}": invalid reference format')
    return ImageName(domain=domain, path=path, tag=tag or "latest", digest=digest)


def is_loopback(name: ImageName) -> bool:
    """Whether the registry is on this machine by its very name."""
    host = name.domain.rpartition(":")[0] or name.domain
    return host == "localhost" or _LOOPBACK.fullmatch(host) is not None


class Pull(StrEnum):
    """What to do about an image before a container is created."""

    USE = "use"  # it is here
    FETCH = "fetch"
    REFUSE = "refuse"  # it is not here and must not be fetched: ErrImageNeverPull


def decide(name: ImageName, policy: str, *, present: bool) -> Pull:
    """By imagePullPolicy; empty means Always for `:latest`, else IfNotPresent. The host image is never pulled."""
    if name.is_host:
        return Pull.USE
    match policy or ("Always" if name.tag == "latest" and not name.digest else "IfNotPresent"):
        case "Never":
            return Pull.USE if present else Pull.REFUSE
        case "IfNotPresent":
            return Pull.USE if present else Pull.FETCH
        case _:
            # An image loaded by hand under a name that no registry serves is used although the policy is Always:
            # names of `localhost/` never leave the machine.
            return Pull.USE if present and name.domain == "localhost" else Pull.FETCH
