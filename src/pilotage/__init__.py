"""Pilotage: Kubernetes service networking, whole, from the life of a Pod to the packet, name and request that reach it.

Purpose: one code base for a cluster on one machine (`pilotage up`) and for parts that run against any cluster.
Inputs → outputs: objects of the Kubernetes API in; pods, packets, names and requests that arrive out.
Invariants: components never import each other, they meet at the API; only `apiserver` opens `storage`;
every component is a pure `core` and a thin shell around it.
Reading order: ARCHITECTURE.md, then the package docstring of the component in question, then its `core`.
Specifications: the Kubernetes 1.36 API; each package names its own.
"""

__version__ = "0.1.0"
