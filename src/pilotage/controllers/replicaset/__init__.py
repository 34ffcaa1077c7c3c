"""Keeps as many pods of a template as a ReplicaSet asks for.

Purpose: pods ↔ replicas, with adoption, ranked deletion and status.
Inputs → outputs: ReplicaSets and Pods → Pods created and deleted, ReplicaSet status.
Invariants: never decides on a cache older than its own writes; no pod of another owner is touched.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "ReplicaSet"; KEP-2255, KEP-2185.
"""
