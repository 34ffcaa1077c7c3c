"""LIST: a page of a collection, as of one revision.

Stands apart because versions, chunks and selectors make it more than a loop. Answers come from the cache: the most
recent state by default, a named past one for `resourceVersionMatch=Exact` and for continuations, which therefore are
consistent across pages. Called by the HTTP front and by deletecollection.
Source: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Semantics for get and list".
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotage.api.catalogue import Resource
from pilotage.api.status import ApiError
from pilotage.apiserver.cache import Cache
from pilotage.apiserver.core.options import ListOptions, decode_continue, encode_continue
from pilotage.apiserver.core.record import Record
from pilotage.apiserver.core.selection import Selection
from pilotage.apiserver.core.stored_form import home_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Records in key order; `continue_token` is "" on the last page."""

    records: list[Record]
    revision: int
    continue_token: str = ""
    remaining: int | None = None  # None: unknown, because a selector filters


async def page(cache: Cache, resource: Resource, namespace: str, selection: Selection, options: ListOptions) -> Page:
    """One page. Raises ApiError Expired for a revision that is too old, Timeout for one that is in the future."""
    objects = cache.resource(*home_of(resource))
    start_after = ""
    revision = cache.revision
    if options.continue_token:
        revision, start_after = decode_continue(options.continue_token)
        if revision < 0:  # the client has been told that the rest comes from another moment, and wants it
            revision = cache.revision
    elif options.resource_version:
        await cache.wait_for(options.resource_version)
        revision = options.resource_version if options.resource_version_match == "Exact" else cache.revision
    if revision == cache.revision and selection.name and bool(namespace) == resource.namespaced:
        record = objects.get(f"{namespace}/{selection.name}" if namespace else selection.name)
        found = iter((record,) if record is not None and not start_after else ())
    elif revision == cache.revision:
        found = objects.scan(namespace, start_after)
    else:
        try:
            found = objects.scan_at(revision, namespace, start_after)
        except ApiError as error:
            if error.reason != "Expired" or not options.continue_token:
                raise
            raise _inconsistent(start_after) from None
    records = list(found) if selection.everything else [record for record in found if selection.matches(record)]
    if not options.limit or len(records) <= options.limit:
        return Page(records=records, revision=revision)
    remaining = len(records) - options.limit if selection.everything else None
    records = records[: options.limit]
    token = encode_continue(revision, records[-1].key)
    return Page(records=records, revision=revision, continue_token=token, remaining=remaining)


def _inconsistent(start_after: str) -> ApiError:
    """410 with a token for the rest of the list as it is now."""
    return ApiError(
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        continue_token=encode_continue(-1, start_after),
    )
