"""Objects on top of bytes: encode, write, wait until the cache shows it.

Stands apart so that the registry never sees keys or bytes. A write returns when it is durable *and* visible in the
cache, so whoever was answered reads its own write. Called by the registry and by bootstrap.
"""

from __future__ import annotations

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError
from pilotage.apiserver.cache import Cache, ResourceCache, full_key
from pilotage.apiserver.core.record import Document, Record, encode
from pilotage.apiserver.core.stored_form import home_of, lifetime_s
from pilotage.storage import Backend, ConflictError, TooLargeError

# A write that is accepted but not yet durable blocks its key's next writer at most this long.
IN_FLIGHT_WAIT_S = 10.0


class ObjectStore:
    """Create, update and delete single objects with optimistic concurrency."""

    def __init__(self, backend: Backend, cache: Cache) -> None:
        self._backend = backend
        self.cache = cache

    def resource(self, resource: Resource) -> ResourceCache:
        """The cache of a resource; group-versions of one kind share it."""
        return self.cache.resource(*home_of(resource))

    async def create(self, resource: Resource, key: str, document: Document) -> Record:
        """Write a new object in its stored form, which belongs to the cache from here on. Raises ConflictError."""
        return await self._put(resource, key, document, 0)

    async def update(self, resource: Resource, current: Record, document: Document) -> Record:
        """Replace `current` by a stored form, which belongs to the cache from here on. Raises ConflictError."""
        return await self._put(resource, current.key, document, current.revision)

    async def _put(self, resource: Resource, key: str, document: Document, expected: int) -> Record:
        stored = full_key(*home_of(resource), key)
        value = encode(document)
        self.cache.hint(stored, value, document)
        try:
            revision = await self._backend.update(stored, value, expected, ttl_s=lifetime_s(resource))
        except TooLargeError as error:
            self.cache.drop_hint(stored)
            raise ApiError("RequestEntityTooLarge", f"the store refuses the object: {error}") from error
        except ConflictError as conflict:
            self.cache.drop_hint(stored)
            await self._settle(conflict)
            raise
        await self.cache.wait_for(revision, IN_FLIGHT_WAIT_S)
        return Record.from_stored(key, value, revision)

    async def delete(self, resource: Resource, current: Record) -> Record:
        """Remove `current`; return it as of its deletion. Raises storage.ConflictError."""
        stored = full_key(*home_of(resource), current.key)
        try:
            revision = await self._backend.delete(stored, current.revision)
        except ConflictError as conflict:
            await self._settle(conflict)
            raise
        await self.cache.wait_for(revision, IN_FLIGHT_WAIT_S)
        return current.at(revision)

    async def _settle(self, conflict: ConflictError) -> None:
        """Wait until the cache has seen the write that won, so that a retry starts from it."""
        # A deletion leaves no revision behind; whatever the store has accepted by now includes it.
        await self.cache.wait_for(conflict.actual or self._backend.revision, IN_FLIGHT_WAIT_S)
