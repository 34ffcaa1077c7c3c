"""Mirrors hand-written Endpoints objects into EndpointSlices.

Purpose: whoever still writes Endpoints for a Service without a selector is heard by consumers of slices.
Inputs → outputs: Endpoints and Services → EndpointSlices created, changed, deleted.
Invariants: objects of Services with a selector, and those that ask not to be mirrored, are not touched; at most 1,000
addresses of a subset are mirrored, and then it says so.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "EndpointSlice mirroring"; KEP-752.
"""
