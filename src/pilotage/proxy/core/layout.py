"""The constant layout of the proxy's tables: which chains, sets and maps there are, and what their keys mean.

Stands apart from `plan`, which only fills it: this is the program, the elements are its data. One table an address
family, alike to the letter. The number of chains and maps does not grow with Services: an address and port leads to a
class, which says how many endpoints there are and what else is to be asked; the class to one of a few `spread-N`
chains; and that chain's random slot to an endpoint.

    prerouting, -100  dispatch         services → node ports → class (→ source ranges → outsiders → affinity): DNAT
    output,     -100  dispatch-output  the same for the node's own processes
    input,       100  arrive           remember sticky clients
    postrouting, 100  leave            the same; masquerade hairpin, outsiders, external addresses with policy Cluster

Decisions, and what they replaced:
- All of them are of type nat, which the kernel runs for the first packet of a connection alone: every other packet
  passes without a rule. Refusals stand there, too: what is refused is never tracked, so the next try is a first one.
- The count, then the slot, travel in the packet's priority; `settle` clears it before a queue looks. A verdict map
  keyed by address would need no such step, but the kernel walks every element of a changed verdict map (1.2 ms for
  10,000, 15 ms for 40,000, measured), so the cost of one change would grow with the cluster. The packet mark, the other
  candidate, belongs to routing policy; the priority orders queues, and nothing reads it in between. The random number
  as part of the key (`typeof … numgen`) would do for the slot, but nft 1.0.6 cannot extend such a table later.
- Outsiders' classes have a map of their own, since the kernel takes no rules that could run in a circle.
- No mark says "masquerade this" either: postrouting reads the connection's original destination.
- Clients are remembered in one map a family, with a timeout an element: exact to the second, whatever the endpoints do.
  The IPv6 rule reaches the kernel as a netlink message, since nft 1.0.6 cannot say keys of that length (`rulewire`).

Specification: nft(8). Differs from kube-proxy: affinity is kept per address of a Service, because the key is the
address; unused ports and unassigned protocols of a cluster IP are refused at once instead of dropped.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pilotage.nft.core.expressions import (
    DADDR,
    DPORT,
    DROP,
    L4PROTO,
    ORIGINAL_DADDR,
    ORIGINAL_DPORT,
    PRIORITY,
    RETURN,
    SADDR,
    Concat,
    Dnat,
    HasPort,
    InNetworks,
    InSet,
    IsDnatted,
    IsLocal,
    IsProtocol,
    Lookup,
    Masquerade,
    Numgen,
    OutInterface,
    Reject,
    Rule,
    SetPriority,
    Statement,
    Update,
    Verdict,
    VerdictMap,
    goto,
    jump,
    rule,
)
from pilotage.nft.core.objects import Chain, Hook, Set, Table
from pilotage.nft.core.types import CLASS_ID, IPV4, IPV6, PORT, PROTOCOL, Layout

TABLE_NAME = "pilotage"
PROTOCOLS = ("tcp", "udp", "sctp")

# Slots of endpoints that only outsiders use start here, so that both kinds share one map.
LOCAL_SLOTS = 1 << 15
SLOTS_MAX = LOCAL_SLOTS - 1  # endpoints of one service port; what exceeds it is left out and reported
# What else a class says, beside the number of endpoints.
NODE_PORT_CLASS = 1 << 16
STICKY_CLASS = 1 << 17  # a client that is remembered goes where it went
SPLIT_CLASS = 1 << 18  # outsiders have a class of their own
GUARDED_CLASS = 1 << 19  # only listed sources may enter
# There is no endpoint for the client that asks; instead of a number.
REFUSED_CLASS, DROPPED_CLASS = 1 << 20 | 1, 1 << 21 | 1

# Sticky clients remembered per address family: about 200 bytes each in the kernel.
_AFFINITY_SIZE = 262_144
_AFFINITY_DEFAULT_S = 10_800  # Kubernetes' default of sessionAffinityConfig.clientIP.timeoutSeconds


@dataclass(frozen=True, kw_only=True)
class TableSets:
    """Every set and map of one table, by what it answers."""

    services: Set  # address, protocol, port → class: how many endpoints insiders share
    external_services: Set  # the same for outsiders, where policy Local gives them another choice
    node_ports: Set  # protocol, port → class
    external_node_ports: Set
    backends: Set  # address, protocol, port, slot → endpoint
    node_port_backends: Set  # protocol, port, slot → endpoint
    spread: Set  # class → goto spread chain, refuse or drop
    external_spread: Set  # the same, for the classes of outsiders
    cluster_ips: Set  # addresses whose traffic this table answers for
    allowed_sources: Set  # address, protocol, port and the sources that may use them
    masqueraded: Set  # address, protocol, port whose connections get the node's source address
    masqueraded_node_ports: Set
    unmasqueraded: Set  # address, protocol, port whose clients keep their address
    hairpin: Set  # (endpoint, the same endpoint) for endpoints of this node
    sticky: Set  # address, protocol, port → goto remember chain
    sticky_node_ports: Set
    affinity: Set  # client, address, protocol, port → endpoint

    def all(self) -> tuple[Set, ...]:
        return tuple(self.__dict__.values())

    def planned(self) -> tuple[Set, ...]:
        """Those whose elements a plan states; the affinity maps belong to the packets."""
        return tuple(one for one in self.all() if not one.dynamic)

    def by_name(self, name: str) -> Set:
        return next(one for one in self.all() if one.name == name)


@cache
def table(family: str) -> Table:
    return Table(family=family, name=TABLE_NAME)


@cache
def sets(family: str) -> TableSets:
    address = IPV4 if family == "ip" else IPV6
    frontend, node_port = Layout((address, PROTOCOL, PORT)), Layout((PROTOCOL, PORT))
    endpoint, count = Layout((address, PORT)), Layout((CLASS_ID,))

    def verdicts(name: str, key: Layout) -> Set:
        return Set(name=name, key=key, value="verdict")

    return TableSets(
        services=Set(name="services", key=frontend, value=count),
        external_services=Set(name="external-services", key=frontend, value=count),
        node_ports=Set(name="node-ports", key=node_port, value=count),
        external_node_ports=Set(name="external-node-ports", key=node_port, value=count),
        backends=Set(name="backends", key=Layout((*frontend.parts, CLASS_ID)), value=endpoint),
        node_port_backends=Set(name="node-port-backends", key=Layout((*node_port.parts, CLASS_ID)), value=endpoint),
        spread=verdicts("spread", count),
        external_spread=verdicts("external-spread", count),
        cluster_ips=Set(name="cluster-ips", key=Layout((address,))),
        allowed_sources=Set(name="allowed-sources", key=Layout((*frontend.parts, address)), interval=True),
        masqueraded=Set(name="masqueraded", key=frontend),
        masqueraded_node_ports=Set(name="masqueraded-node-ports", key=node_port),
        unmasqueraded=Set(name="unmasqueraded", key=frontend),
        hairpin=Set(name="hairpin", key=Layout((address, address))),
        sticky=verdicts("sticky", frontend),
        sticky_node_ports=verdicts("sticky-node-ports", node_port),
        affinity=Set(
            name="affinity",
            key=Layout((address, *frontend.parts)),
            value=endpoint,
            dynamic=True,
            timeout_s=_AFFINITY_DEFAULT_S,
            size=_AFFINITY_SIZE,
        ),
    )


def first_slot(class_id: int) -> int:
    """The number of a class's first endpoint. Never 0, which nft prints as a word that it does not read back."""
    return LOCAL_SLOTS if class_id & LOCAL_SLOTS else 1


_ENDS = {
    "spread": 0,
    "spread-local": LOCAL_SLOTS,
    "node-port": NODE_PORT_CLASS,
    "node-port-local": NODE_PORT_CLASS | LOCAL_SLOTS,
    "refused": REFUSED_CLASS & ~SLOTS_MAX,
    "dropped": DROPPED_CLASS & ~SLOTS_MAX,
}
_VARIANTS = {
    f"{end}{sticky}{split}{guarded}": end_bits | sticky_bit | split_bit | guarded_bit
    for end, end_bits in _ENDS.items()
    for sticky, sticky_bit in (("", 0), ("-sticky", STICKY_CLASS))
    for split, split_bit in (("", 0), ("-split", SPLIT_CLASS))
    for guarded, guarded_bit in (("", 0), ("-guarded", GUARDED_CLASS))
}
_VARIANT_NAMES = {bits: name for name, bits in _VARIANTS.items()}


def class_of(chain: str) -> int | None:
    """The class that leads to the spread chain of this name; None: no such chain."""
    variant, _, count = chain.rpartition("-")
    if variant not in _VARIANTS or not count.isdigit() or not 0 < int(count) <= SLOTS_MAX:
        return None
    return _VARIANTS[variant] | int(count)


def refusal(class_id: int) -> Verdict | None:
    """What becomes of a client for whom there is no endpoint; None: there are some.

    KEP-2086: where endpoints exist but policy Local forbids them here, packets are dropped, so that a balancer tries
    another node; without any endpoint clients are refused, so that they know at once.
    """
    if class_id & REFUSED_CLASS & ~SLOTS_MAX:
        return goto("refuse")
    return DROP if class_id & DROPPED_CLASS & ~SLOTS_MAX else None


@cache
def spread_chain(family: str, class_id: int) -> Chain:
    """The chain that a class leads to: who may enter, then pick a slot and send the connection there."""
    count, first = class_id & SLOTS_MAX, first_slot(class_id)
    own = sets(family)
    frontend = (DADDR[family], L4PROTO, DPORT)
    rules = []
    if class_id & GUARDED_CLASS:
        allowed = InSet(Concat((*frontend, SADDR[family])), own.allowed_sources.name, negated=True)
        rules.append(rule(allowed, DROP))
    if class_id & SPLIT_CLASS:
        rules.append(rule(jump("external")))
    if class_id & STICKY_CLASS:
        rules.append(rule(Dnat(family, Lookup(Concat((SADDR[family], *frontend)), own.affinity.name))))
    if (refused := refusal(class_id)) is not None:
        rules.append(rule(refused))
    else:
        if class_id & NODE_PORT_CLASS:
            slot = Lookup(Concat((L4PROTO, DPORT, PRIORITY)), own.node_port_backends.name)
        else:
            slot = Lookup(Concat((*frontend, PRIORITY)), own.backends.name)
        rules.append(rule(SetPriority(Numgen(count, first)), Dnat(family, slot)))
        # Met only between the two halves of a change: the class was read before it, the slot after. Untranslated, the
        # connection would be remembered as one to nowhere; dropped, its first packet is sent again.
        rules.append(rule(DROP))
    return Chain(name=f"{_VARIANT_NAMES[class_id & ~SLOTS_MAX]}-{count}", rules=tuple(rules))


@cache
def remember_chain(family: str, timeout_s: int) -> Chain:
    """The chain that keeps a client with the endpoint it was just given."""
    affinity = sets(family).affinity
    key = Concat((SADDR[family], ORIGINAL_DADDR[family], L4PROTO, ORIGINAL_DPORT))
    update = Update(affinity.name, key, Concat((DADDR[family], DPORT)), timeout_s)
    # `ct original proto-dst` has a type only after the protocol is known, hence a rule each.
    return Chain(name=f"remember-{timeout_s}", rules=tuple(rule(HasPort(protocol), update) for protocol in PROTOCOLS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the layout must know about the cluster around this node."""

    cluster_cidrs: tuple[str, ...] = ()  # where pods live; empty: unknown, then only the node itself counts as inside
    node_port_addresses: tuple[str, ...] = ()  # CIDRs of own addresses that answer on node ports; empty: all of them


_NOWHERE = {"ip": "0.0.0.0", "ip6": "::"}  # noqa: S104  # to match, not to bind


def _networks(family: str, cidrs: Iterable[str]) -> tuple[str, ...]:
    """Those of one family, merged and sorted: nft refuses ranges that overlap."""
    given = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    if family == "ip":
        return tuple(map(str, ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv4Network))))
    return tuple(map(str, ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv6Network))))


def static_chains(family: str, surroundings: Surroundings) -> tuple[Chain, ...]:
    """The chains that are always there, each after those it leads to."""
    own = sets(family)
    frontend = Concat((DADDR[family], L4PROTO, DPORT))
    node_port = Concat((L4PROTO, DPORT))
    original = Concat((ORIGINAL_DADDR[family], L4PROTO, ORIGINAL_DPORT))
    original_node_port = Concat((L4PROTO, ORIGINAL_DPORT))
    inside = _networks(family, surroundings.cluster_cidrs)
    loopback = InNetworks(DADDR[family], ("127.0.0.0/8",) if family == "ip" else ("::1",), negated=True)
    # Node ports are for this host's addresses, but not for loopback: that would need route_localnet, which lets
    # neighbours reach services bound to 127.0.0.1 (CVE-2020-8558).
    to_node: tuple[Statement, ...] = (IsLocal("daddr"), loopback)
    if surroundings.node_port_addresses:
        chosen = _networks(family, surroundings.node_port_addresses)
        # None of this family: an address that no packet goes to, so that the program keeps its shape.
        to_node += (InNetworks(DADDR[family], chosen or (_NOWHERE[family],)),)
    outsider: tuple[Statement, ...] = (IsLocal("saddr", negated=True),)
    if inside:
        outsider = (InNetworks(SADDR[family], inside, negated=True), *outsider)

    def spread(key: Concat, classes: Set, chains: Set) -> tuple[Statement, ...]:
        return SetPriority(Lookup(key, classes.name)), VerdictMap(Concat((PRIORITY,)), chains.name)

    def base(name: str, hook: str, priority: int, *rules: Rule) -> Chain:
        return Chain(name=name, rules=rules, hook=Hook(type="nat", hook=hook, priority=priority))

    remember = (
        rule(IsProtocol(protocol), VerdictMap(key, name))
        for key, name in ((original, own.sticky.name), (original_node_port, own.sticky_node_ports.name))
        for protocol in PROTOCOLS
    )
    settle = (rule(SetPriority(0)), *remember)
    dispatch = (
        rule(*spread(frontend, own.services, own.spread)),
        rule(*to_node, *spread(node_port, own.node_ports, own.spread)),
        rule(InSet(Concat((DADDR[family],)), own.cluster_ips.name), goto("refuse")),
    )
    masquerade: list[Rule] = [
        rule(OutInterface("lo"), RETURN),
        rule(InSet(Concat((SADDR[family], DADDR[family])), own.hairpin.name), Masquerade()),
    ]
    masquerade += [
        rule(IsProtocol(protocol), InSet(original, own.masqueraded.name), Masquerade()) for protocol in PROTOCOLS
    ]
    to_cluster_ip = InSet(Concat((ORIGINAL_DADDR[family],)), own.cluster_ips.name)
    if inside:
        masquerade.append(rule(InNetworks(SADDR[family], inside, negated=True), to_cluster_ip, Masquerade()))
    # What is left was for a node port, unless its address is one of ours: the port alone does not tell.
    masquerade.append(rule(to_cluster_ip, RETURN))
    for name, key, end in (
        (own.unmasqueraded.name, original, RETURN),
        (own.masqueraded_node_ports.name, original_node_port, Masquerade()),
    ):
        masquerade += [rule(IsProtocol(protocol), InSet(key, name), end) for protocol in PROTOCOLS]
    return (
        Chain(name="refuse", rules=(rule(IsProtocol("tcp"), Reject(with_reset=True)), rule(Reject()))),
        Chain(name="settle", rules=settle),
        Chain(name="masquerading", rules=tuple(masquerade)),
        Chain(
            name="external",
            rules=(
                rule(*outsider, *spread(frontend, own.external_services, own.external_spread)),
                rule(*outsider, *spread(node_port, own.external_node_ports, own.external_spread)),
            ),
        ),
        base("dispatch", "prerouting", -100, *dispatch),
        base("dispatch-output", "output", -100, *dispatch),
        base("arrive", "input", 100, rule(IsDnatted(), jump("settle"))),
        base("leave", "postrouting", 100, rule(IsDnatted(), jump("settle")), rule(IsDnatted(), goto("masquerading"))),
    )
