"""The gateway: Ingress (and Gateway API to come) → Envoy, which it keeps running.

Purpose: HTTP, HTTPS and gRPC from outside reach the ready endpoints of Services, request by request.
Inputs → outputs: Ingresses, IngressClasses, Services, EndpointSlices and TLS Secrets from the API; xDS resources to an
Envoy, addresses to Ingress statuses, problems to Events, a watermark.
Invariants: an address is published only after Envoy acknowledged the routes; a bad object harms nobody else's routes;
churn of endpoints touches neither listeners nor routes; while the API or this process is away Envoy serves what it has.
Reading order: `core/ir.py`, `core/ingress.py`, `core/backend.py`, `core/translate.py`, then the shells `gateway.py`,
`status.py`, `envoy.py`; `forwarder.py` stands beside them.
Specifications: networking.k8s.io/v1 Ingress and its documentation; KEP-3726 (appProtocol); xDS v3.
"""

from pilotage.gateway.forwarder import Forward, forward
from pilotage.gateway.gateway import Config, run

__all__ = ["Config", "Forward", "forward", "run"]
