"""Keeps numbered pods with stable names, one by one or in parallel.

Purpose: ordered creation, scaling and rolling update of pods `<set>-<ordinal>` and of their volume claims.
Inputs → outputs: StatefulSets, Pods, ControllerRevisions, PersistentVolumeClaims → Pods, ControllerRevisions and
PersistentVolumeClaims, StatefulSet status.
Invariants: at most one pod of an ordinal at any time; OrderedReady never has two pods in transition.
Reading order: `core`, `claims`, `reconciler`.
Specifications: Kubernetes documentation "StatefulSets"; KEP-961 (maxUnavailable), KEP-3335 (start ordinal),
KEP-4017 (pod index label), KEP-1847 (retention of claims). Nothing provisions the claims: that is the business of a
provisioner.
"""
