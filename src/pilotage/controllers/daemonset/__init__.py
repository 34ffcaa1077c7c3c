"""Keeps one pod of a template on every node it fits.

Purpose: a pod a node, rolling update by deletion within maxUnavailable.
Inputs → outputs: DaemonSets, Nodes, Pods, ControllerRevisions → Pods, ControllerRevisions, DaemonSet status.
Invariants: at most one living pod a node; a node that must not run it loses it.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "DaemonSet". Deliberately absent for now: maxSurge (KEP-1591).
"""
