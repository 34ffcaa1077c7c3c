"""ClusterConfig → Plan: every address, namespace and route of a fabric, before anything of it exists.

Apart from the fabric that carries it out so that the topology is a value to test and to print. Fed by `config`; read by
the fabric, the process table and the composition roots.

The picture: one bridge `underlay0` in the fabric's own namespace, every node joined to it with one interface. The world
outside the cluster is the fabric's own namespace: it reaches pods and Services through the nodes, by routes, as an
upstream router would.
"""

import ipaddress
from dataclasses import dataclass

from pilotage.network.core.rtnetlink import Route
from pilotage.up.core.config import ClusterConfig, IPv6Networks, NodeConfig, node_configs

UNDERLAY_BRIDGE = "underlay0"
NODE_BRIDGE = "cni0"
NODE_UPLINK = "eth0"  # a node's end of its link to the underlay
_FIRST_NODE = 11  # host number of node 1 on the underlay; below it there is room for the world outside
_DNS_SERVICE = 10  # host number within the Service range, as kubeadm does it
API_PORT = 6443


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node's place in the fabric."""

    config: NodeConfig
    address: str  # InternalIP, on the underlay
    pod_cidr: str
    second_address: str = ""  # of IPv6; empty: none
    second_pod_cidr: str = ""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, self.second_address) if self.second_address else (self.address,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFamily:
    """The ranges of IPv6, and the fabric's own address on the underlay."""

    underlay: str
    address: str
    pod_cidr: str
    service_cidr: str
    load_balancer_cidr: str
    dns_service: str

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.underlay).prefixlen


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole fabric."""

    underlay: str
    address: str  # the fabric's own, on the underlay: the API server, the edge
    nodes: tuple[NodePlan, ...]  # in order of their names' position; at least one
    pod_cidr: str
    service_cidr: str
    load_balancer_cidr: str
    kubernetes_service: str
    dns_service: str
    domain: str
    second: SecondFamily | None = None  # None: a cluster of IPv4 alone

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, self.second.address) if self.second else (self.address,)

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return (self.pod_cidr, self.second.pod_cidr) if self.second else (self.pod_cidr,)

    @property
    def service_cidrs(self) -> tuple[str, ...]:
        return (self.service_cidr, self.second.service_cidr) if self.second else (self.service_cidr,)

    @property
    def dns_services(self) -> tuple[str, ...]:
        return (self.dns_service, self.second.dns_service) if self.second else (self.dns_service,)

    @property
    def load_balancer_cidrs(self) -> tuple[str, ...]:
        return (self.load_balancer_cidr, self.second.load_balancer_cidr) if self.second else (self.load_balancer_cidr,)

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.underlay).prefixlen

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:{API_PORT}"

    def node(self, name: str) -> NodePlan:
        """One node by name; KeyError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def make_plan(config: ClusterConfig) -> Plan:
    """Assign addresses by position: stable over restarts, so that objects in the store stay true."""
    networks = config.networks
    underlay = ipaddress.IPv4Network(networks.underlay)
    pods = ipaddress.IPv4Network(networks.pods)
    services = ipaddress.IPv4Network(networks.services)
    second = _second_family(networks.ipv6) if networks.ipv6 else None
    second_underlay = ipaddress.IPv6Network(second.underlay) if second else None
    second_pods = ipaddress.IPv6Network(second.pod_cidr) if second else None
    nodes = tuple(
        NodePlan(
            config=node,
            address=str(underlay[_FIRST_NODE + position]),
            # Node 1 has the range number 1, so that the address of a pod tells its node.
            pod_cidr=f"{pods[(position + 1) * 256]}/24",
            second_address=str(second_underlay[_FIRST_NODE + position]) if second_underlay else "",
            second_pod_cidr=f"{second_pods[(position + 1) << 64]}/64" if second_pods else "",
        )
        for position, node in enumerate(node_configs(config))
    )
    return Plan(
        underlay=str(underlay),
        address=str(underlay[1]),
        nodes=nodes,
        pod_cidr=str(pods),
        service_cidr=str(services),
        load_balancer_cidr=networks.load_balancers,
        kubernetes_service=str(services[1]),
        dns_service=str(services[_DNS_SERVICE]),
        domain=networks.domain,
        second=second,
    )


def _second_family(networks: IPv6Networks) -> SecondFamily:
    underlay, services = ipaddress.IPv6Network(networks.underlay), ipaddress.IPv6Network(networks.services)
    return SecondFamily(
        underlay=str(underlay),
        address=str(underlay[1]),
        pod_cidr=str(ipaddress.IPv6Network(networks.pods)),
        service_cidr=str(services),
        load_balancer_cidr=networks.load_balancers,
        dns_service=str(services[_DNS_SERVICE]),
    )


def fabric_routes(plan: Plan) -> tuple[Route, ...]:
    """Routes of the fabric's own namespace: pods through their node, Services spread over all nodes by flow."""
    pods = tuple(Route(destination=node.pod_cidr, via=(node.address,)) for node in plan.nodes)
    services = Route(destination=plan.service_cidr, via=tuple(node.address for node in plan.nodes))
    if plan.second is None:
        return (*pods, services)
    second_pods = (Route(destination=node.second_pod_cidr, via=(node.second_address,)) for node in plan.nodes)
    via = tuple(node.second_address for node in plan.nodes)
    return (*pods, services, *second_pods, Route(destination=plan.second.service_cidr, via=via))


# Set before any interface exists: an interface takes `default` when it is made, and the kernel joins it with `all`.
FABRIC_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # A node answers for translated flows whose path back it does not see: strict path checks would drop them.
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    # Pods of one node reach each other through it; telling them of a shorter way would bypass translation.
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    # Spread flows, not pairs of hosts, over the nodes.
    "net.ipv4.fib_multipath_hash_policy": "1",
}
# The same for IPv6, where it is wanted: a kernel may lack it.
SECOND_SYSCTLS = {
    "net.ipv6.conf.all.forwarding": "1",
    # All addresses are ours to give: nobody else can have taken one.
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.fib_multipath_hash_policy": "1",
}
NODE_SYSCTLS = {
    **FABRIC_SYSCTLS,
    # Services may be published on any port of the node by whoever runs it.
    "net.ipv4.ip_unprivileged_port_start": "0",
}
