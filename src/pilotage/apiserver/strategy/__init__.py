"""What the server owns of each kind, and what may not change once it is written.

Purpose: between a client's wish and a stored object: reset what the client may not set, keep what it may not change,
count generations, judge changes.
Inputs → outputs: the stored and the wanted document, the (sub)resource written through → the document to validate;
field errors about the difference.
Invariants: an update through the status subresource changes status and nothing else, any other leaves it alone;
`metadata.generation` grows exactly when what the object asks for changes; stored documents are never modified.
Reading order: `prepare`, `generation`, then the kinds: `pod`, `service`, `workload`; `immutable` for what stays.
Specifications: Kubernetes API conventions, "Spec and Status", "Metadata".
"""

from pilotage.apiserver.strategy.immutable import check_update
from pilotage.apiserver.strategy.prepare import prepare_create, prepare_update

__all__ = ["check_update", "prepare_create", "prepare_update"]
