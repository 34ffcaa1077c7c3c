"""Finds, creates and renumbers the ControllerRevision of a workload's current template.

The shell around `pilotage.api.revisions`, shared by StatefulSets and DaemonSets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.api.apps_v1 import ControllerRevision
from pilotage.api.meta_v1 import Object
from pilotage.api.revisions import find_revision, new_revision, next_number, obsolete
from pilotage.client.informer import Informer
from pilotage.reconcile.request import Request
from pilotage.reconcile.writes import Writes


async def update_revision(
    writes: Writes,
    request: Request,
    informer: Informer[ControllerRevision],
    owner: Object,
    template: Mapping[str, Any],
    revisions: Sequence[ControllerRevision],
    *,
    labels: Mapping[str, str],
    collisions: int | None,
) -> ControllerRevision:
    """The revision of `template` with the highest number: found, renumbered after a rollback, or created."""
    found = find_revision(template, revisions)
    if found is None:
        number = next_number(revisions)
        document = new_revision(owner, template, number, labels=labels, collisions=collisions or 0)
        return await writes.create(request, informer, document)
    number = next_number(item for item in revisions if item is not found)
    if found.revision >= number:
        return found
    return await writes.patch(request, informer, found, {"revision": number})


async def forget_obsolete(
    writes: Writes,
    request: Request,
    informer: Informer[ControllerRevision],
    revisions: Sequence[ControllerRevision],
    live: set[str],
    limit: int,
) -> None:
    """Delete history beyond `limit`."""
    for revision in obsolete(revisions, live, limit):
        await writes.delete(request, informer, revision)
