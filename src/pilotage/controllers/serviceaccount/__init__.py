"""Gives every namespace its `default` ServiceAccount.

Purpose: pods need one to be admitted.
Inputs → outputs: Namespaces and ServiceAccounts → ServiceAccounts created.
Invariants: nothing is created in a terminating namespace; an existing account is never changed.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Managing Service Accounts".
"""
