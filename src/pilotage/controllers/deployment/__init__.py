"""Rolls a Deployment from one template to the next by sizing ReplicaSets.

Purpose: RollingUpdate and Recreate, pause, history, progress deadline; rollback is a patch of the template.
Inputs → outputs: Deployments, ReplicaSets, Pods (for Recreate) → ReplicaSets created, sized, deleted; status.
Invariants: within a rolling update replicas ≤ desired + surge and available ≥ desired − unavailable.
Reading order: `core`, `rolling`, `status`, `reconciler`.
Specifications: Kubernetes documentation "Deployments".
"""
