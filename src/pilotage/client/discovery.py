"""What an API server serves: its resources, custom ones included, at the preferred version of each group.

Stands apart because only namespace deletion and garbage collection must know kinds that nobody has typed. Uses the
plain discovery documents, which every server since Kubernetes 1.5 answers.
"""

import asyncio
from typing import Any, ClassVar

import msgspec

from pilotage.api.codec import Value, convert
from pilotage.api.meta_v1 import Object
from pilotage.client.client import Client


class ServedResource(Value):
    """One collection; subresources are left out."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...]

    def metadata_kind(self) -> type[Object]:
        """A kind that holds the metadata alone, for informers that need no more."""

        class Followed(Object):
            api_version: ClassVar[str] = self.api_version
            kind: ClassVar[str] = self.kind
            plural: ClassVar[str] = self.plural
            namespaced: ClassVar[bool] = self.namespaced

        return Followed


class _Group(Value):
    class Version(Value):
        group_version: str

    preferred_version: Version


class _Resource(Value):
    name: str
    kind: str
    namespaced: bool = False
    verbs: tuple[str, ...] = ()


async def discover(client: Client) -> tuple[ServedResource, ...]:
    """Every resource, core first. One request a group, in parallel."""
    groups = convert(list[_Group], (await _get(client, "/apis")).get("groups", []))
    versions = ["v1", *(group.preferred_version.group_version for group in groups)]
    listed = await asyncio.gather(
        *(_get(client, f"/apis/{version}" if "/" in version else f"/api/{version}") for version in versions)
    )
    return tuple(
        ServedResource(
            api_version=version,
            plural=item.name,
            kind=item.kind,
            namespaced=item.namespaced,
            verbs=item.verbs,
        )
        for version, document in zip(versions, listed, strict=True)
        for item in convert(list[_Resource], document.get("resources", []))
        if "/" not in item.name
    )


async def _get(client: Client, path: str) -> dict[str, Any]:
    return msgspec.json.decode(await client.request("GET", path), type=dict[str, Any])
