"""Gives every node a range of pod addresses.

Purpose: `spec.podCIDR` for nodes that register without one.
Inputs → outputs: Nodes → podCIDR patched.
Invariants: ranges never overlap; a range once given is never changed (the API forbids it).
Reading order: `core`, `reconciler`.
Specifications: KEP-2450 (dual-stack podCIDRs); one range of each family of the cluster's.
"""
