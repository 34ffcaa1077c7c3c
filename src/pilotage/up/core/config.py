"""What a user may say about a cluster: the values of `--config` and of the flags, with their defaults.

Apart from the loader (`pilotage.up.configuration`) so that defaults and checks are a table. Called by the loader and by
`plan`. Leaves out everything that is a setting of one component alone: those are that component's own configuration.
"""

import ipaddress
import re
from collections.abc import Mapping

import msgspec

from pilotage.up.core import agent_config
from pilotage.up.core.agent_config import AgentConfig

NODES_MAX = 100  # node i has 10.89.0.(10+i) and 10.244.i.0/24 by default; far below where either would run out
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")  # RFC 1123 label, short enough for paths and process names


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Strict: a key nobody reads is a mistake of the writer's."""


class Taint(_Section, frozen=True, kw_only=True):
    """A taint of a node, as in Node.spec.taints."""

    key: str
    effect: str
    value: str = ""


class NodeConfig(_Section, frozen=True, kw_only=True):
    """One node. Its name is n1, n2 … by position unless given."""

    name: str = ""
    zone: str = ""  # empty: zone-a and zone-b in turn
    region: str = "region-1"
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    agent: AgentConfig = AgentConfig()  # where this node differs from the cluster's


class Ports(_Section, frozen=True, kw_only=True):
    """Ports on the host's loopback. 0: the default one (6443, 8080, 8443), or a free one when it is taken."""

    api: int = 0
    http: int = 0
    https: int = 0


class IPv6Networks(_Section, frozen=True, kw_only=True):
    """The same ranges of the second family. Unique local ones (RFC 4193), as nothing outside sees them either."""

    underlay: str = "fd00:10:89::/64"
    pods: str = "fd00:10:244::/56"  # cut into one /64 a node
    services: str = "fd00:10:96::/112"
    load_balancers: str = "fd00:10:89::200:0/112"  # within the underlay


class Networks(_Section, frozen=True, kw_only=True):
    """Address ranges inside the fabric; nothing outside ever sees them."""

    underlay: str = "10.89.0.0/16"  # nodes, edge and load balancers; a /16
    pods: str = "10.244.0.0/16"  # cut into one /24 a node
    services: str = "10.96.0.0/16"
    load_balancers: str = "10.89.200.0/24"  # within the underlay
    domain: str = "cluster.local"
    ipv6: IPv6Networks | None = None  # None: everything has an IPv4 address alone


class ClusterConfig(_Section, frozen=True, kw_only=True):
    """One cluster."""

    name: str = "pilotage"
    nodes: int | tuple[NodeConfig, ...] = 2
    ports: Ports = Ports()
    networks: Networks = Networks()
    data_dir: str = ""  # empty: the place for clusters of this user
    # Where names outside the cluster are asked for, "address:port". Nothing routes out of the fabric, so the default is
    # the fabric's own address, where the world outside the cluster lives.
    dns_upstreams: tuple[str, ...] = ("10.89.0.1:53",)
    dns_config: str = ""  # absolute path of the DNS servers' chain of steps, instead of dns_upstreams; empty: none
    agent: AgentConfig = AgentConfig()  # of all nodes
    log_level: str = "info"


def node_configs(config: ClusterConfig) -> tuple[NodeConfig, ...]:
    """The nodes with names, zones and the cluster's settings of agents filled in, in order."""
    given = tuple(NodeConfig() for _ in range(config.nodes)) if isinstance(config.nodes, int) else config.nodes
    return tuple(
        msgspec.structs.replace(
            node,
            name=node.name or f"n{position}",
            zone=node.zone or f"zone-{'ab'[(position - 1) % 2]}",
            agent=agent_config.merged(config.agent, node.agent),
        )
        for position, node in enumerate(given, start=1)
    )


def problem(config: ClusterConfig) -> tuple[str, str] | None:
    """The first thing wrong with a config that its types cannot say, as (path, message); None: it can be built."""
    if not NAME.fullmatch(config.name):
        return "$.name", f"name {config.name!r} must be lower-case letters, digits and dashes, at most 40"
    nodes = node_configs(config)
    if not 1 <= len(nodes) <= NODES_MAX:
        return "$.nodes", f"{len(nodes)} nodes: between 1 and {NODES_MAX} can be built"
    seen: set[str] = set()
    for position, node in enumerate(nodes):
        if not NAME.fullmatch(node.name):
            return f"$.nodes[{position}].name", f"node name {node.name!r} must be lower-case letters, digits, dashes"
        if node.name in seen:
            return f"$.nodes[{position}].name", f"node name {node.name!r} is used twice"
        seen.add(node.name)
    if (wrong := _agents_problem(config, nodes)) is not None:
        return wrong
    for name, port in (("api", config.ports.api), ("http", config.ports.http), ("https", config.ports.https)):
        if not 0 <= port <= 65535:
            return f"$.ports.{name}", f"port {port} is not between 0 and 65535"
    if config.dns_config and not config.dns_config.startswith("/"):
        return "$.dnsConfig", f"dnsConfig {config.dns_config!r} must be an absolute path"
    if config.log_level not in ("debug", "info", "warning", "error"):
        return "$.logLevel", f"log level {config.log_level!r} must be debug, info, warning or error"
    return _network_problem(config.networks)


def _agents_problem(config: ClusterConfig, nodes: tuple[NodeConfig, ...]) -> tuple[str, str] | None:
    """A node's own settings must be good together with the cluster's."""
    if (wrong := agent_config.problem(config.agent)) is not None:
        return f"$.agent.{wrong[0]}", wrong[1]
    for position, node in enumerate(nodes):
        if (wrong := agent_config.problem(node.agent)) is not None:
            return f"$.nodes[{position}].agent.{wrong[0]}", f"{node.name}: {wrong[1]}"
    return None


def _network_problem(networks: Networks) -> tuple[str, str] | None:
    ranges = {
        "underlay": (networks.underlay, 16),
        "pods": (networks.pods, 16),
        "services": (networks.services, 24),
        "loadBalancers": (networks.load_balancers, 30),
    }
    found = _family_problem("$.networks", 4, ranges)
    if found is not None or (second := networks.ipv6) is None:
        return found
    ranges = {
        "underlay": (second.underlay, 64),
        "pods": (second.pods, 56),
        "services": (second.services, 112),
        "loadBalancers": (second.load_balancers, 126),
    }
    return _family_problem("$.networks.ipv6", 6, ranges)


def _family_problem(path: str, version: int, ranges: Mapping[str, tuple[str, int]]) -> tuple[str, str] | None:
    parsed: dict[str, _Network] = {}
    for name, (value, prefix_max) in ranges.items():
        try:
            parsed[name] = ipaddress.IPv4Network(value) if version == 4 else ipaddress.IPv6Network(value)
        except ValueError as error:
            return f"{path}.{name}", f"{name}: {error}"
        if parsed[name].prefixlen > prefix_max:
            return f"{path}.{name}", f"{name} {value} is too small: at least a /{prefix_max} is needed"
    pool, underlay = parsed["loadBalancers"], parsed["underlay"]
    if not (pool.network_address in underlay and pool.broadcast_address in underlay):
        return f"{path}.loadBalancers", f"loadBalancers {ranges['loadBalancers'][0]} must lie within the underlay"
    for one, other in (("pods", "services"), ("pods", "underlay"), ("services", "underlay")):
        if parsed[one].overlaps(parsed[other]):
            return f"{path}.{one}", f"{one} {parsed[one]} overlaps {other} {parsed[other]}"
    return None
