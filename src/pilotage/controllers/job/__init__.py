"""Runs pods until enough of them have succeeded.

Purpose: completions, parallelism, Indexed mode, backoff limits, failure and success policies, deadline, suspension,
time to live.
Inputs → outputs: Jobs and Pods → Pods created and deleted, Job status.
Invariants: every finished pod is counted exactly once, whoever deletes it and whenever we crash; a verdict once written
stands, and becomes final when the last pod is gone.
Reading order: `core`, `policies`, `indexes`, `reconciler`.
Specifications: Kubernetes documentation "Jobs"; KEP-2307 (tracking by finalizers), KEP-2214 (Indexed), KEP-3329
(failure policy), KEP-3850 (limit per index), KEP-3998 (success policy), KEP-3939 (replacement), KEP-4368 (managedBy).
"""
