"""Envoy's side: serves configuration to Envoys over incremental (delta) ADS; knows no Gateway and no Kubernetes.

Purpose: bring every connected Envoy to one snapshot of resources, without a moment in which a route points at nothing.
Inputs → outputs: `Snapshot` values in; discovery responses on the wire, `NodeState` values (what each Envoy
acknowledged or refused) out.
Invariants: clusters are acknowledged and their endpoints known before the listeners and routes that use them are sent;
nothing is removed while something that may use it is not yet replaced (make before break); one refused resource never
holds back the others; a resource an Envoy already has is not sent again, also across reconnects.
Reading order: `core/resource.py` (what is sent), `core/stream.py` (when), `server.py` (the gRPC shell).
Specifications: xDS REST and gRPC protocol, incremental variant (envoyproxy.io, api-docs/xds_protocol).
"""

from pilotage.xds.core.resource import Resource, ResourceType, Snapshot
from pilotage.xds.server import AdsServer, NodeState

__all__ = ["AdsServer", "NodeState", "Resource", "ResourceType", "Snapshot"]
