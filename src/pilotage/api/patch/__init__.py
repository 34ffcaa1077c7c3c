"""Every way to change an object without sending the whole of it.

Purpose: the four patch formats of the Kubernetes API and the bookkeeping of who owns which field.
Inputs → outputs: a plain document and a patch → a new document, or `PatchError`; a write → the document
with managedFields.
Invariants: arguments are never modified; applying a configuration twice changes nothing the second time; an ordinary
update that changes nothing leaves managedFields untouched.
Reading order: `json_patch`, `merge_patch`, `strategic_merge_patch`, then `fieldset`, `compare`, `managed`, `apply`.
Specifications: RFC 6902, RFC 7396, KEP-555.
"""

from pilotage.api.patch.apply import server_side_apply, track_update
from pilotage.api.patch.errors import ApplyConflict, PatchError
from pilotage.api.patch.json_patch import json_patch
from pilotage.api.patch.merge_patch import merge_patch
from pilotage.api.patch.strategic_merge_patch import strategic_merge_patch

__all__ = [
    "ApplyConflict",
    "PatchError",
    "json_patch",
    "merge_patch",
    "server_side_apply",
    "strategic_merge_patch",
    "track_update",
]
