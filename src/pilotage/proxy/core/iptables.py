"""Frontends → chains of iptables rules: the program and its data at once, since iptables has no maps.

Stands apart from `layout`, its counterpart for nftables, and from `restore`, which turns chains into text and back. Fed
by the iptables backend with one `Frontends` an address family. Pure; every rule is spelled as iptables-save prints it,
so that what stands in the kernel compares with what is wanted.

    nat     PREROUTING, OUTPUT        SERVICES → bucket → frontend (→ sources → sides → sticky endpoint): DNAT
    nat     POSTROUTING               LEAVE → bucket: masquerade hairpin, outsiders, external addresses
    filter  INPUT, FORWARD, OUTPUT    GUARD → bucket: refuse or drop what was not translated

iptables tries rules one after another, so one flat list of frontends would cost every connection a comparison per
Service. Buckets (256 addresses, or 64 node ports of a protocol) make the list two-staged: ten thousand Services in a
/16 are some 40 comparisons and then at most 256 addresses. A bucket is also what a change rewrites.

Decisions: masquerading reads the connection's original destination, so no packet is marked, and asks for the address
before the port, since another Service's node port may be the port of a cluster IP (what is entered by `goto` returns
past its caller, so an address that is ours never comes to the node ports); a frontend without sticky
clients has its endpoints in its own chain, so a Service is one chain; the filter side looks at packets that were not
translated.

Specification: iptables-extensions(8). Differs from kube-proxy: no marks, no comments, unused ports and protocols of a
cluster IP are refused at once.
"""

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from pilotage.nft.core.types import PROTOCOL
from pilotage.proxy.core.fragment import Frontend, Target
from pilotage.proxy.core.frontends import Forwarding, Frontends, Refusal, Side
from pilotage.proxy.core.layout import Surroundings

ChainName: TypeAlias = tuple[str, str]  # table, chain
Rules: TypeAlias = tuple[str, ...]  # as iptables-save prints them, without `-A CHAIN`
Chains: TypeAlias = Mapping[ChainName, Rules]
# Whether it holds node ports, and the leading bytes of the addresses, or protocol and leading bits of the ports.
Bucket: TypeAlias = tuple[bool, bytes]

PREFIX = "PILOTAGE-"  # of every chain that is ours, in every table; users and `cleanup` know them by it
# What we put into the chains of the kernel, where everybody's rules are.
HOOKS: Mapping[ChainName, str] = {
    ("nat", "PREROUTING"): f"-j {PREFIX}SERVICES",
    ("nat", "OUTPUT"): f"-j {PREFIX}SERVICES",
    ("nat", "POSTROUTING"): f"-m conntrack --ctstate DNAT -j {PREFIX}LEAVE",
    ("filter", "INPUT"): f"-m conntrack --ctstate NEW -j {PREFIX}GUARD",
    ("filter", "FORWARD"): f"-m conntrack --ctstate NEW -j {PREFIX}GUARD",
    ("filter", "OUTPUT"): f"-m conntrack --ctstate NEW -j {PREFIX}GUARD",
}
_MASQUERADE = "-j MASQUERADE --random-fully"
_NODE_PORTS_LOG2 = 6
_NAME_LENGTH = 16  # a chain's name has 28 characters at most; 80 bits of hash keep 10^5 of them apart


# Whether the kernel takes this tells whether it can remember clients; the second part leaves nothing behind.
PROBE_RECENT = (
    f"*nat\n:{PREFIX}PROBE - [0:0]\n-A {PREFIX}PROBE -m recent --set --name {PREFIX}PROBE -j RETURN\nCOMMIT\n",
    f"*nat\n:{PREFIX}PROBE - [0:0]\n-X {PREFIX}PROBE\nCOMMIT\n",
)


class RuleSet:
    """The chains of one address family, kept up to date bucket by bucket."""

    def __init__(self, family: str, surroundings: Surroundings, *, remembers: bool = True) -> None:
        """`remembers`: whether the kernel can keep clients with their endpoints at all."""
        self.family = family
        self.remembers = remembers
        self.frontends = Frontends(family)
        self._surroundings = surroundings
        self._inside = self._own(surroundings.cluster_cidrs)
        self._members: dict[Bucket, set[Frontend]] = {}
        self._cluster_ips: dict[Bucket, set[bytes]] = {}
        self._buckets: dict[Bucket, Chains] = {}
        self._top: Chains = {}

    def chains(self) -> dict[ChainName, Rules]:
        """Every chain there must be."""
        found = dict(self._top)
        for chains in self._buckets.values():
            found.update(chains)
        return found

    def load(self) -> None:
        """Write everything anew, for the `frontends` as they are."""
        self._members.clear()
        self._cluster_ips.clear()
        self._buckets.clear()
        self.update(set(self.frontends.all()), self.frontends.cluster_ips)

    def update(self, touched: Iterable[Frontend], cluster_ips: Iterable[bytes]) -> dict[ChainName, Rules | None]:
        """Write the buckets anew that hold one of these; returns the chains that differ now, None for those gone.

        Costs the size of those buckets, not of everything.
        """
        buckets: set[Bucket] = set()
        for frontend in touched:
            bucket = _bucket_of(frontend)
            buckets.add(bucket)
            members = self._members.setdefault(bucket, set())
            (members.discard if self.frontends.forwarding(frontend) is None else members.add)(frontend)
        for address in cluster_ips:
            bucket = (False, address[:-1])
            buckets.add(bucket)
            held = self._cluster_ips.setdefault(bucket, set())
            (held.add if address in self.frontends.cluster_ips else held.discard)(address)
        changes: dict[ChainName, Rules | None] = {}
        for bucket in sorted(buckets):
            before = self._buckets.pop(bucket, {})
            after = self._bucket(bucket)
            if after:
                self._buckets[bucket] = after
            changes |= _difference(before, after)
        before, self._top = self._top, self._top_chains()
        return changes | _difference(before, self._top)

    # ── chains ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _top_chains(self) -> dict[ChainName, Rules]:
        """The chains that are always there, and lead to the buckets."""
        family = self.family
        not_loopback = f"-d {'127.0.0.0/8' if family == 'ip' else '::1/128'} -j RETURN"
        to_node = "-m addrtype --dst-type LOCAL -j " + PREFIX
        chosen = self._own(self._surroundings.node_port_addresses)
        to_nodes = [f"-d {cidr} {to_node}" for cidr in chosen]
        if not self._surroundings.node_port_addresses:
            to_nodes = [to_node]
        ordered = sorted(self._buckets)
        addresses, node_ports = ([one for one in ordered if one[0] == is_ports] for is_ports in (False, True))
        inside = [f"-s {cidr} -j RETURN" for cidr in self._inside]
        insiders = (*inside, "-m addrtype --src-type LOCAL -j RETURN")
        reject = "icmp-port-unreachable" if family == "ip" else "icmp6-port-unreachable"

        def lead(kind: str, buckets: Sequence[Bucket], way: str = "-j") -> Rules:
            table = "filter" if kind == "G" else "nat"
            names = [(bucket, _bucket_name(kind, family, bucket)) for bucket in buckets]
            return tuple(
                f"{_bucket_match(bucket, original=kind == 'M')} {way} {name}"
                for bucket, name in names
                if (table, name) in self._buckets[bucket]
            )

        hairpin = tuple(
            f"-s {_network(endpoint)} -d {_network(endpoint)} {_MASQUERADE}"
            for endpoint in sorted(self.frontends.hairpins)
        )
        return {
            ("nat", f"{PREFIX}SERVICES"): (*lead("S", addresses), *(f"{one}NODE-PORTS" for one in to_nodes)),
            ("nat", f"{PREFIX}NODE-PORTS"): (not_loopback, *lead("S", node_ports)),
            ("nat", f"{PREFIX}LEAVE"): (
                "-o lo -j RETURN",
                *hairpin,
                *lead("M", addresses, "-g"),
                f"-g {PREFIX}LEAVE-PORTS",
            ),
            # For connections whose original address is none of ours, hence the node's.
            ("nat", f"{PREFIX}LEAVE-PORTS"): lead("M", node_ports),
            ("nat", f"{PREFIX}OUTSIDERS"): (*inside, _MASQUERADE) if inside else (),
            ("filter", f"{PREFIX}GUARD"): (
                "-m conntrack --ctstate DNAT -j RETURN",
                *lead("G", addresses),
                *(f"{one}GUARD-PORTS" for one in to_nodes),
            ),
            ("filter", f"{PREFIX}GUARD-PORTS"): (not_loopback, *lead("G", node_ports)),
            ("filter", f"{PREFIX}REFUSE"): (
                "-p tcp -j REJECT --reject-with tcp-reset",
                f"-j REJECT --reject-with {reject}",
            ),
            ("filter", f"{PREFIX}REFUSE-OUT"): (*insiders, f"-j {PREFIX}REFUSE"),
            ("filter", f"{PREFIX}DROP-OUT"): (*insiders, "-j DROP"),
        }

    def _own(self, cidrs: Iterable[str]) -> list[str]:
        """Those of this family."""
        networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
        return [str(network) for network in networks if (network.version == 6) == (self.family == "ip6")]

    def _bucket(self, bucket: Bucket) -> dict[ChainName, Rules]:
        """Every chain of one bucket; empty chains are left out, except for frontends that somebody leads to."""
        spread: list[str] = []
        leave: list[str] = []
        guard: list[str] = []
        chains: dict[ChainName, Rules] = {}
        cluster_ips = self._cluster_ips.get(bucket, set())
        for frontend in sorted(self._members.get(bucket, ())):
            forwarding = self.frontends.forwarding(frontend)
            if forwarding is None:
                continue
            chains |= self._frontend(frontend, forwarding)
            match = _match(frontend)
            if forwarding.inside.targets or forwarding.outside.targets:
                entry = _name("F" if forwarding.sources is None else "A", *frontend)
                spread.append(f"{match} -j {entry}")
            guard += [f"{match} {action}" for action in _refusals(frontend, forwarding)]
            if forwarding.masqueraded:
                leave.append(f"{_match_original(frontend)} {_MASQUERADE}")
            elif frontend[1] and frontend[1] not in cluster_ips:
                leave.append(f"{_match_original(frontend)} -j RETURN")
        for address in sorted(cluster_ips):
            # After the frontends of the same address: what is left is what it does not serve.
            guard.append(f"-d {_network(address)} -j {PREFIX}REFUSE")
            leave.append(f"-m conntrack --ctorigdst {ipaddress.ip_address(address)} -g {PREFIX}OUTSIDERS")
        if leave and not bucket[0]:
            leave.append(f"-g {PREFIX}LEAVE-PORTS")
        for table, kind, rules in (("nat", "S", spread), ("nat", "M", leave), ("filter", "G", guard)):
            if rules:
                chains[table, _bucket_name(kind, self.family, bucket)] = tuple(rules)
        return chains

    def _frontend(self, frontend: Frontend, forwarding: Forwarding) -> dict[ChainName, Rules]:
        """The chains of one frontend: who may enter, which side they are on, which endpoint they get."""
        chains: dict[ChainName, Rules] = {}
        entry = _name("F", *frontend)
        inside, outside = forwarding.inside, forwarding.outside
        if forwarding.sources is not None:
            sources = _networks(forwarding.sources)
            chains["nat", _name("A", *frontend)] = tuple(f"-s {source} -g {entry}" for source in sources)
            allowed = (*(f"-s {source} -j RETURN" for source in sources), "-j DROP")
            chains["filter", _name("A", *frontend)] = allowed
        if not (inside.targets or outside.targets):
            chains.pop(("nat", _name("A", *frontend)), None)
            return chains
        if not outside:
            chains |= self._side(frontend, entry, inside, forwarding.affinity_s)
            return chains
        insiders, outsiders = _name("I", *frontend), _name("X", *frontend)
        chains["nat", entry] = (
            *(f"-s {cidr} -g {insiders}" for cidr in self._inside),
            f"-m addrtype --src-type LOCAL -g {insiders}",
            f"-g {outsiders}",
        )
        chains |= self._side(frontend, insiders, inside, forwarding.affinity_s)
        # Whoever is outside and has no endpoint of his own is refused by the filter side.
        chains |= self._side(frontend, outsiders, outside, forwarding.affinity_s)
        return chains

    def _side(self, frontend: Frontend, name: str, side: Side, affinity_s: int) -> dict[ChainName, Rules]:
        """The chain that picks an endpoint, and with affinity one more for each endpoint."""
        protocol = PROTOCOL.decode(frontend[2])
        if not affinity_s or not self.remembers:
            actions = [f"-j DNAT --to-destination {_destination(target)}" for target, _ in side.targets]
            rules = [f"-p {protocol}{chance} {action}" for chance, action in zip(_chances(side), actions, strict=True)]
            return {("nat", name): tuple(rules)}
        mask = ipaddress.ip_network((b"\0" * (4 if self.family == "ip" else 16), 0)).hostmask
        chains: dict[ChainName, Rules] = {}
        keep, pick = [], []
        for chance, (target, _) in zip(_chances(side), side.targets, strict=True):
            endpoint = _name("E", *frontend, target)
            recent = f"--name {endpoint} --mask {mask} --rsource"
            keep.append(f"-m recent --rcheck --seconds {affinity_s} --reap {recent} -j {endpoint}")
            pick.append(f"{chance} -j {endpoint}".lstrip())
            to = f"-j DNAT --to-destination {_destination(target)}"
            chains["nat", endpoint] = (f"-p {protocol} -m recent --set {recent} {to}",)
        chains["nat", name] = (*keep, *pick)
        return chains


def _refusals(frontend: Frontend, forwarding: Forwarding) -> Iterable[str]:
    """What the filter side does with packets for a frontend that were not translated."""
    if forwarding.sources is not None:
        yield f"-j {_name('A', *frontend)}"
    if forwarding.outside.refusal is not None:
        yield "-j " + PREFIX + {"drop": "DROP-OUT", "refuse": "REFUSE-OUT"}[forwarding.outside.refusal]
    if forwarding.inside.refusal is not None:
        yield _REFUSALS[forwarding.inside.refusal]


_REFUSALS: Mapping[Refusal, str] = {"drop": "-j DROP", "refuse": f"-j {PREFIX}REFUSE"}


def _difference(before: Chains, after: Chains) -> dict[ChainName, Rules | None]:
    changes: dict[ChainName, Rules | None] = {name: None for name in before if name not in after}
    changes |= {name: rules for name, rules in after.items() if before.get(name) != rules}
    return changes


def _chances(side: Side) -> list[str]:
    """For each endpoint in turn, the chance to take it once its predecessors were passed; the last is certain."""
    left = sum(weight for _, weight in side.targets)
    found = []
    for _, weight in side.targets:
        # The kernel counts in 2⁻³¹, and iptables-save prints what the kernel has.
        share = round(weight / left * 2**31)
        found.append(f" -m statistic --mode random --probability {share / 2**31:.11f}" if weight < left else "")
        left -= weight
    return found


# ── spelling ────────────────────────────────────────────────────────────────────────────────────────────────────


def _name(kind: str, *identity: str | bytes) -> str:
    text = b"\0".join(part.encode() if isinstance(part, str) else part for part in identity)
    return f"{PREFIX}{kind}-" + base64.b32encode(hashlib.sha256(text).digest()).decode()[:_NAME_LENGTH]


def _network(address: bytes) -> str:
    return f"{ipaddress.ip_address(address)}/{len(address) * 8}"


def _destination(target: Target) -> str:
    address, port = ipaddress.ip_address(target[:-4]), int.from_bytes(target[-4:-2], "big")
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _networks(ranges: Iterable[tuple[bytes, bytes]]) -> list[str]:
    found: list[str] = []
    for low, high in ranges:
        first, last = ipaddress.ip_address(low), ipaddress.ip_address(high)
        found += map(str, ipaddress.summarize_address_range(first, last))
    return found


def _protocol_and_port(frontend: Frontend) -> tuple[str, int]:
    return PROTOCOL.decode(frontend[2]), int.from_bytes(frontend[2][4:6], "big")


def _match(frontend: Frontend) -> str:
    protocol, port = _protocol_and_port(frontend)
    destination = f"-d {_network(frontend[1])} " if frontend[1] else ""
    return f"{destination}-p {protocol} -m {protocol} --dport {port}"


def _match_original(frontend: Frontend) -> str:
    protocol, port = _protocol_and_port(frontend)
    destination = f" --ctorigdst {ipaddress.ip_address(frontend[1])}" if frontend[1] else ""
    return f"-p {protocol} -m conntrack{destination} --ctorigdstport {port}"


def _bucket_of(frontend: Frontend) -> Bucket:
    if frontend[1]:
        return (False, frontend[1][:-1])
    port = int.from_bytes(frontend[2][4:6], "big")
    return (True, frontend[2][:1] + (port >> _NODE_PORTS_LOG2).to_bytes(2, "big"))


def _bucket_name(kind: str, family: str, bucket: Bucket) -> str:
    return _name(kind, family, "ports" if bucket[0] else "addresses", bucket[1])


def _bucket_match(bucket: Bucket, *, original: bool) -> str:
    """What every frontend of the bucket has in common, asked of a packet or of its connection's original."""
    if not bucket[0]:
        lowest = ipaddress.ip_address(bucket[1] + b"\0")
        network = f"{lowest}/{len(bucket[1]) * 8}"
        return f"-m conntrack --ctorigdst {network}" if original else f"-d {network}"
    protocol = PROTOCOL.decode(bucket[1][:1] + b"\0\0\0")
    first = int.from_bytes(bucket[1][1:], "big") << _NODE_PORTS_LOG2
    ports = f"{first}:{first + (1 << _NODE_PORTS_LOG2) - 1}"
    match = f"-m conntrack --ctorigdstport {ports}" if original else f"-m {protocol} --dport {ports}"
    return f"-p {protocol} {match}"
