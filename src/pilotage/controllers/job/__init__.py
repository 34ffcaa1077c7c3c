"""Runs pods until enough of them have succeeded.

Purpose: completions, parallelism, Indexed mode, backoff limit, deadline, suspension, time to live.
Inputs → outputs: Jobs and Pods → Pods created and deleted, Job status.
Invariants: every finished pod is counted exactly once, whoever deletes it and whenever we crash.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Jobs"; KEP-2307 (tracking by finalizers), KEP-2214 (Indexed).
Deliberately absent for now: podFailurePolicy, successPolicy, backoffLimitPerIndex.
"""
