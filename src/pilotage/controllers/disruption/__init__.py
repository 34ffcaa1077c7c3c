"""Says how many pods of each PodDisruptionBudget may be disturbed now.

Purpose: the number that the eviction subresource spends and that preemption respects.
Inputs → outputs: PodDisruptionBudgets, Pods and the workloads that manage them → PodDisruptionBudget status.
Invariants: an eviction granted but not yet seen counts as a disruption; when in doubt nothing may be disturbed.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Disruptions", "Specifying a Disruption Budget"; KEP-3017 (unhealthy
pods, which the eviction subresource decides).
"""
