"""The columns `kubectl get` prints, kind by kind.

Purpose: cells for tables, computed on the server so that every client prints alike.
Inputs → outputs: a resource → its columns; an object and the time → a cell.
Invariants: the first column is the name; columns of priority above 0 appear only with `-o wide`; a broken or
half-filled object yields a cell, never an exception.
Reading order: `column` (what one is), then a module a family of kinds.
Specifications: Kubernetes API concepts, "Receiving resources as Tables"; column names as kubectl's users know them.
"""

from pilotage.api.catalogue import Resource
from pilotage.apiserver.core.columns.cluster import CLUSTER
from pilotage.apiserver.core.columns.column import Column, name_and_age
from pilotage.apiserver.core.columns.networking import NETWORKING
from pilotage.apiserver.core.columns.pods import PODS
from pilotage.apiserver.core.columns.workloads import WORKLOADS
from pilotage.apiserver.core.custom_resource import CustomResource

_COLUMNS = {**PODS, **WORKLOADS, **NETWORKING, **CLUSTER}
_DEFAULT = name_and_age()


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """The columns of a kind; name and age where nothing better is known."""
    if isinstance(resource, CustomResource):
        return resource.custom.columns
    return _COLUMNS.get((resource.group, resource.plural), _DEFAULT)


__all__ = ["Column", "columns_of"]
