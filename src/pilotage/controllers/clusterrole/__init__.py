"""Writes the rules of aggregated ClusterRoles: those of every role their selectors choose.

Purpose: whoever reads `view`, `edit`, `admin` or a role made like them sees what it grants now.
Inputs → outputs: ClusterRoles → `rules` of those with an aggregationRule.
Invariants: rules come in the order of the roles' names, none twice; a role does not aggregate itself.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Using RBAC Authorization", "Aggregated ClusterRoles".
"""
