"""Addresses for Services of type LoadBalancer, and who answers for them.

Purpose: give every such Service an address from a pool, once for the cluster; and on each node answer the neighbours'
question "who has it?" for the addresses that fall to this node.
Inputs → outputs: Services, EndpointSlices, Nodes → `status.loadBalancer`, answers to ARP and neighbour discovery, a
watermark.
Invariants: an address belongs to one Service at a time and stays with it as long as it wants one; exactly one ready
node answers for an address, chosen by all nodes alike without talking to each other.
Reading order: `core.addresses`, `core.speaker`, `core.arp`, `core.ndp`, then `assigner`, `neighbours` and `announcer`.
Specifications: Service API (loadBalancerClass, KEP-1959; ipMode, KEP-1860); RFC 826 (ARP), RFC 5227 (announcements);
RFC 4861 (neighbour discovery).
"""

from pilotage.loadbalancer.announcer import AnnouncerConfig, run_announcer
from pilotage.loadbalancer.assigner import AssignerConfig, run_assigner

__all__ = ["AnnouncerConfig", "AssignerConfig", "run_announcer", "run_assigner"]
