"""Where the agent of a node is, and how to speak to it.

Stands apart because logs, streams and the proxy of nodes all need it: the address a Node publishes, the port of its
`kubeletEndpoint`, and TLS with the certificate that agents demand. The context is made when first needed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property

from pilotage.api.status import ApiError
from pilotage.apiserver.core.record import Document
from pilotage.apiserver.registry import Registry
from pilotage.apiserver.subresources import builtin
from pilotage.apiserver.tunnel import Peer

NODES = builtin("", "v1", "nodes")
AGENT_PORT = 10250  # the kubelet's; a node may publish another


class Agents:
    """The agents of the cluster's nodes."""

    def __init__(self, registry: Registry, tls: Callable[[], ssl.SSLContext]) -> None:
        self._registry = registry
        self._make_tls = tls

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """For connections to agents: verified, with the certificate they ask for."""
        return self._make_tls()

    def of_pod(self, pod: Document) -> Peer:
        """The agent that runs a pod. Raises ApiError."""
        name = (pod.get("spec") or {}).get("nodeName")
        if not name:
            raise ApiError("BadRequest", f"pod {pod['metadata']['name']} does not have a host assigned")
        node = self._registry.cache(NODES).get(name)
        return self.of_node(node.document if node is not None else {"metadata": {"name": name}})

    def of_node(self, node: Document) -> Peer:
        """The agent of a node. Raises ApiError InternalError if the node does not say where it is."""
        status = node.get("status") or {}
        address = next((a["address"] for a in status.get("addresses") or () if a.get("type") == "InternalIP"), None)
        if address is None:
            name = node["metadata"]["name"]
            raise ApiError("InternalError", f"node {name} has no internal address to reach its agent at")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or AGENT_PORT
        return Peer(host=address, port=port, tls=self.tls)
