"""Publishes the API server's CA certificate as ConfigMap `kube-root-ca.crt` in every namespace.

Purpose: projected service account volumes verify the API server with it.
Inputs → outputs: Namespaces and those ConfigMaps → ConfigMaps created and corrected.
Invariants: its data is exactly `ca.crt`; nothing is created in a terminating namespace.
Reading order: `core`, `reconciler`.
Specifications: KEP-1205 (bound service account tokens, "RootCAConfigMap").
"""
