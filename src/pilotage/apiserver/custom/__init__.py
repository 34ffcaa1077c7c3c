"""Resources that are defined while the server runs.

Purpose: CustomResourceDefinitions as kube-apiserver serves them: structural schemas, pruning, defaults, validation with
CEL rules, several versions, subresources, printer columns.
Inputs → outputs: a definition → errors, or resources in the server's index; a body of such a resource → a document
without unknown fields, defaulted, or errors; a definition that goes → nothing left of its objects.
Invariants: a resource appears in discovery and in routing at once; objects are stored in the storage version alone and
shown in the version asked for; what an update leaves unchanged is never refused for a stricter schema.
Reading order: `definition`, `structural` (what is accepted), `shape`, `validator`, `rules` (what a schema does), `kind`
(joined), `published`, `printer`, then `definitions` (the shell).
Specifications: KEP-95, KEP-2876 (CEL), KEP-4008 (ratcheting);
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from pilotage.apiserver.custom.definition import FINALIZER, check_definition
from pilotage.apiserver.custom.definitions import DEFINITIONS, Definitions

__all__ = ["DEFINITIONS", "FINALIZER", "Definitions", "check_definition"]
