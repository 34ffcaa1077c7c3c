"""Empties a namespace that is being deleted, then lets it go.

Purpose: `kubectl delete namespace` ends with nothing left inside.
Inputs → outputs: Namespaces, discovery → collections deleted, namespace status and finalizer.
Invariants: the finalizer goes only when every served collection is empty; pods go first (KEP-5080), so that nothing
they depend on vanishes under them.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes design "Namespaces"; KEP-5080.
"""
