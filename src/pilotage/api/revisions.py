"""ControllerRevisions: the remembered templates of StatefulSets and DaemonSets.

Stands apart because both kinds keep history in the same form, which `kubectl rollout history` and `undo` read. Pure.
Source: Kubernetes API reference, apps/v1 ControllerRevision; the data is a strategic merge patch of the owner.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.api.apps_v1 import ControllerRevision
from pilotage.api.meta_v1 import Object
from pilotage.api.pods import controller_reference
from pilotage.api.workloads import template_hash

REVISION_LABEL = "controller-revision-hash"


def template_in(revision: ControllerRevision) -> dict[str, Any]:
    """The pod template that the revision remembers."""
    template: Mapping[str, Any] = revision.data.get("spec", {}).get("template", {})
    return {key: value for key, value in template.items() if key != "$patch"}


def find_revision(template: Mapping[str, Any], revisions: Iterable[ControllerRevision]) -> ControllerRevision | None:
    """The revision that remembers `template`."""
    return next((item for item in revisions if template_in(item) == template), None)


def next_number(revisions: Iterable[ControllerRevision]) -> int:
    return max((item.revision for item in revisions), default=0) + 1


def new_revision(
    owner: Object, template: Mapping[str, Any], number: int, *, labels: Mapping[str, str], collisions: int
) -> dict[str, Any]:
    """The document of a revision named by the template's hash."""
    mark = template_hash(template, collisions)
    name = f"{owner.metadata.name[:223]}-{mark}"
    return {
        "apiVersion": ControllerRevision.api_version,
        "kind": ControllerRevision.kind,
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "labels": {**labels, "controller.kubernetes.io/hash": mark},
            "ownerReferences": [controller_reference(owner)],
        },
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": number,
    }


def obsolete(
    revisions: Sequence[ControllerRevision], live: Iterable[str], limit: int
) -> tuple[ControllerRevision, ...]:
    """History beyond `limit`, oldest first; revisions named in `live` do not count and stay."""
    names = set(live)
    history = sorted((item for item in revisions if item.metadata.name not in names), key=lambda item: item.revision)
    return tuple(history[: max(len(history) - limit, 0)])
