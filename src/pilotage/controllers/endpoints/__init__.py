"""Publishes the pods behind each Service as the legacy Endpoints object.

Purpose: programs that predate EndpointSlices still read it.
Inputs → outputs: Services and Pods → one Endpoints object a Service.
Invariants: at most 1,000 addresses, and then it says so; objects of Services without a selector are not touched.
Reading order: `core`, `reconciler`.
Specifications: Kubernetes documentation "Services, Endpoints"; deprecated since 1.33 in favour of EndpointSlice.
"""
