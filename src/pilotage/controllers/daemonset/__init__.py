"""Keeps one pod of a template on every node it fits.

Purpose: a pod a node, rolling update by deletion within maxUnavailable or by a second pod within maxSurge.
Inputs → outputs: DaemonSets, Nodes, Pods, ControllerRevisions → Pods, ControllerRevisions, DaemonSet status.
Invariants: at most one living pod a node, two while it surges; a node that must not run it loses it.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "DaemonSet"; KEP-1591 (maxSurge).
"""
