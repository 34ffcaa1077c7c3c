"""Addresses for Services of type LoadBalancer, and somebody who answers for them.

Purpose: give each such Service an address from a pool, and let one node of the local network answer for that address,
so that a client outside the cluster reaches the Service without any other balancer.
Inputs → outputs: Services and pools → `status.loadBalancer` (the assigner, once a cluster); Services, EndpointSlices
and Nodes → ARP answers (the announcer, on each node); a watermark.
Invariants: an address belongs to one Service at a time and stays with it; at most one node answers for an address, and
all nodes come to the same choice from the same objects; what comes from the network is never trusted for its length.
Reading order: core/pools, core/election, core/arp, assigner, announcer.
Specifications: Service API (type LoadBalancer, KEP-1959 loadBalancerClass, KEP-1860 ipMode); RFC 826, RFC 5227 (ARP).
"""

from pilotage.loadbalancer.announcer import AnnouncerConfig, run_announcer
from pilotage.loadbalancer.assigner import AssignerConfig, run_assigner

__all__ = ["AnnouncerConfig", "AssignerConfig", "run_announcer", "run_assigner"]
