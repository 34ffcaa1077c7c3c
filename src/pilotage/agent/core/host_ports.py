"""hostPort: which ports of the node lead to which pod, and the nftables rules that make it so.

Stands apart because it is a value, tried without a kernel; `host_ports` applies it. One table for each family of the
pods' addresses, two maps (ports of one address, ports of all the node's), however many pods there are. A `hostIP` is of
one family, 0.0.0.0 and :: too: they are all addresses of theirs. Runs before the service proxy's chains: a host port
wins over a node port of the same number, as with the portmap plugin. Loopback is left out (it would need
route_localnet, which opens the node's loopback services to its neighbours). Specification: nft(8).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.agent.core.pod_spec import containers_in_order
from pilotage.api.core_v1 import Pod
from pilotage.nft.core.expressions import (
    DADDR,
    DPORT,
    L4PROTO,
    SADDR,
    Concat,
    Dnat,
    InSet,
    IsDnatted,
    IsLocal,
    Lookup,
    Masquerade,
    Rule,
    rule,
)
from pilotage.nft.core.objects import (
    AddElements,
    AddSet,
    AddTable,
    Chain,
    Command,
    DeleteTable,
    Hook,
    PutChain,
    Set,
    Table,
    Transaction,
)
from pilotage.nft.core.types import IPV4, IPV6, PORT, DataType, Layout

NAME = "pilotage-host-ports"
BEFORE_PROXY = -105  # dstnat is -100
AFTER = 105


def claims(pod: Pod) -> tuple[tuple[str, str, int], ...]:
    """(address or "", protocol, port) for every host port of the pod; of its network's, if that is the node's."""
    found = []
    for container in containers_in_order(pod):
        for port in container.ports:
            number = port.host_port or (port.container_port if pod.spec.host_network else 0)
            if number:
                # As the scheduler sees them: 0.0.0.0 stands for every address of both families, :: for itself.
                address = "" if port.host_ip == "0.0.0.0" else port.host_ip  # noqa: S104 - a meaning, no bind
                found.append((address, port.protocol, number))
    return tuple(found)


def conflicts(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    """Whether two claims exclude each other: same port and protocol, same or any address."""
    return one[1:] == other[1:] and (not one[0] or not other[0] or one[0] == other[0])


def plan(pods: Mapping[str, Pod], families: Iterable[str]) -> Transaction:
    """The whole tables of `families` (nft's: ip, ip6) for `pods` by each of their addresses; no host port, no table."""
    commands: list[Command] = []
    for family in families:
        mine = {address: pod for address, pod in sorted(pods.items()) if family_of(address) == family}
        commands += _FAMILIES[family].commands(mine)
    return Transaction(tuple(commands))


def family_of(address: str) -> str:
    """Nft's name for the family of an address or a range."""
    return "ip6" if ":" in address else "ip"


@dataclass(frozen=True, slots=True)
class _Family:
    """One family's table."""

    name: str
    address: DataType
    unspecified: str

    @property
    def table(self) -> Table:
        return Table(family=self.name, name=NAME)

    def commands(self, pods: Mapping[str, Pod]) -> list[Command]:
        target_layout = Layout((self.address, PORT))
        any_key = Concat((L4PROTO, DPORT))
        bound_key = Concat((DADDR[self.name], L4PROTO, DPORT))
        self_key = Concat((SADDR[self.name], DADDR[self.name]))
        to_any: dict[bytes, bytes] = {}
        bound: dict[bytes, bytes] = {}
        for address, pod in pods.items():
            for container in containers_in_order(pod):
                for port in container.ports:
                    if not port.host_port or pod.spec.host_network:
                        continue
                    protocol, target = port.protocol.lower(), target_layout.encode(address, port.container_port)
                    if port.host_ip in ("", self.unspecified):
                        to_any.setdefault(any_key.layout.encode(protocol, port.host_port), target)
                    elif family_of(port.host_ip) == self.name:
                        bound.setdefault(bound_key.layout.encode(port.host_ip, protocol, port.host_port), target)
        table = self.table
        if not to_any and not bound:
            return [DeleteTable(table)]
        elements = (
            (Set(name="any", key=any_key.layout, value=target_layout), to_any),
            (Set(name="bound", key=bound_key.layout, value=target_layout), bound),
            # A pod that calls itself through the node's port.
            (Set(name="self", key=self_key.layout), {self_key.layout.encode(each, each): None for each in pods}),
        )
        to_pod = (
            rule(Dnat(self.name, Lookup(bound_key, "bound"))),
            rule(IsLocal("daddr"), Dnat(self.name, Lookup(any_key, "any"))),
        )
        back = (rule(IsDnatted(), InSet(self_key, "self"), Masquerade()),)
        return [
            DeleteTable(table),
            AddTable(table),
            *(AddSet(table, one) for one, _ in elements),
            PutChain(table, _chain("incoming", "prerouting", BEFORE_PROXY, to_pod)),
            PutChain(table, _chain("own", "output", BEFORE_PROXY, to_pod)),
            PutChain(table, _chain("returning", "postrouting", AFTER, back)),
            *(AddElements(table, one, found) for one, found in elements if found),
        ]


def _chain(name: str, hook: str, priority: int, rules: tuple[Rule, ...]) -> Chain:
    return Chain(name=name, hook=Hook(type="nat", hook=hook, priority=priority), rules=rules)


_FAMILIES = {
    "ip": _Family("ip", IPV4, "0.0.0.0"),  # noqa: S104 - a meaning, no bind
    "ip6": _Family("ip6", IPV6, "::"),
}
