"""Deletes what has lost its owners, and carries out foreground and orphan deletion.

Purpose: deleting a Deployment takes its ReplicaSets and pods with it.
Inputs → outputs: metadata of all kinds that own or are owned → deletions, owner references and finalizers removed.
Invariants: an owner counts as gone only after the API server itself said so; a deletion names uid and
resourceVersion, so that an object adopted meanwhile is spared.
Reading order: `core` (the graph), `reconciler`, `sources`.
Specifications: Kubernetes documentation "Garbage Collection", "Owners and Dependents".
Deliberately absent: Events and Leases (churn without value) and cluster configuration kinds nobody owns.
"""
