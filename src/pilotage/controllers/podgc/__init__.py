"""Removes pods that nobody else can: on nodes that are gone, never bound and being deleted, too many finished ones.

Purpose: an agent ends its own pods; where there is no agent, this does.
Inputs → outputs: Pods and Nodes → Pods deleted by force.
Invariants: a pod on an existing node is never forced, finished ones beyond the threshold aside.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Pod Lifecycle", "Garbage collection of Pods"; KEP-2268.
"""
