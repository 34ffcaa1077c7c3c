"""Notices that a node has fallen silent, says so, and taints what nobody should be sent to.

Purpose: Ready becomes Unknown 40 s after the last heartbeat; taints follow conditions and cordons.
Inputs → outputs: Nodes and their Leases → node conditions and taints, pods marked not ready.
Invariants: only taints of its own keys are touched; silence is measured by this process's own clock.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Nodes" (heartbeats), "Taints and Tolerations"; KEP-589 (leases).
"""
