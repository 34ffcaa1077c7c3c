"""Evicts pods from nodes with NoExecute taints they do not (or no longer) tolerate.

Purpose: pods leave a dead node after `tolerationSeconds`, and a tainted one at once.
Inputs → outputs: Pods and Nodes → Pods deleted, condition DisruptionTarget.
Invariants: a pod that tolerates every NoExecute taint for ever is never touched.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Taints and Tolerations", "Taint based Evictions".
"""
