"""Keeps numbered pods with stable names, one by one or in parallel.

Purpose: ordered creation, scaling and rolling update of pods `<set>-<ordinal>`.
Inputs → outputs: StatefulSets, Pods, ControllerRevisions → Pods and ControllerRevisions, StatefulSet status.
Invariants: at most one pod of an ordinal at any time; OrderedReady never has two pods in transition.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "StatefulSets"; KEP-961 (maxUnavailable), KEP-3335 (start ordinal),
KEP-4017 (pod index label). Deliberately absent for now: volume claim templates, since nothing provisions claims.
"""
