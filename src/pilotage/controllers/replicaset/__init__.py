"""Keeps as many pods of a template as a ReplicaSet, or a ReplicationController, asks for.

Purpose: pods ↔ replicas, with adoption, ranked deletion and status.
Inputs → outputs: ReplicaSets, ReplicationControllers and Pods → Pods created and deleted, status.
Invariants: never decides on a cache older than its own writes; no pod of another owner is touched.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "ReplicaSet", "ReplicationController"; KEP-2255, KEP-2185.
"""
