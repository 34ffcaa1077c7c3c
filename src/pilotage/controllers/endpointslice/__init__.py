"""Publishes the pods behind each Service as EndpointSlices.

Purpose: the one source from which proxies, DNS and gateways learn addresses.
Inputs → outputs: Services, Pods, Nodes → EndpointSlices created, changed, deleted.
Invariants: what takes traffic away is written at once, whatever else is put off; every address of a Service stands in
exactly one of our slices; at most 100 in a slice; a change of one pod writes one slice; slices of other owners are not
touched.
Reading order: `core`, `topology`, `damping`, `reconciler`.
Specifications: KEP-752, KEP-1672, KEP-4444 and KEP-3015 (trafficDistribution), KEP-2433 (topology-mode Auto); ADR 8
for pods that flap.
"""
