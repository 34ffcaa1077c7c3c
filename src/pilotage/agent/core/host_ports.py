"""hostPort: which ports of the node lead to which pod, and the nftables rules that make it so.

Stands apart because it is a value, tried without a kernel; `host_ports` applies it. One table, two maps (ports of one
address, ports of all the node's), however many pods there are. Runs before the service proxy's chains: a host port
wins over a node port of the same number, as with the portmap plugin. Loopback is left out (it would need
route_localnet, which opens the node's loopback services to its neighbours). Specification: nft(8).
"""

from collections.abc import Mapping

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
from pilotage.nft.core.types import IPV4, PORT, Layout

TABLE = Table(family="ip", name="pilotage-host-ports")
BEFORE_PROXY = -105  # dstnat is -100
AFTER = 105

_TARGET = Layout((IPV4, PORT))
_ANY_KEY = Concat((L4PROTO, DPORT))
_BOUND_KEY = Concat((DADDR["ip"], L4PROTO, DPORT))
_SELF_KEY = Concat((SADDR["ip"], DADDR["ip"]))
ANY = Set(name="any", key=_ANY_KEY.layout, value=_TARGET)
BOUND = Set(name="bound", key=_BOUND_KEY.layout, value=_TARGET)
SELF = Set(name="self", key=_SELF_KEY.layout)  # a pod that calls itself through the node's port


def claims(pod: Pod) -> tuple[tuple[str, str, int], ...]:
    """(address or "", protocol, port) for every host port of the pod; of its network's, if that is the node's."""
    found = []
    for container in containers_in_order(pod):
        for port in container.ports:
            number = port.host_port or (port.container_port if pod.spec.host_network else 0)
            if number:
                address = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip  # noqa: S104 - a meaning, no bind
                found.append((address, port.protocol, number))
    return tuple(found)


def conflicts(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    """Whether two claims exclude each other: same port and protocol, same or any address."""
    return one[1:] == other[1:] and (not one[0] or not other[0] or one[0] == other[0])


def plan(pods: Mapping[str, Pod]) -> Transaction:
    """The whole table for `pods` by their address; without any host port there is none."""
    to_any: dict[bytes, bytes] = {}
    bound: dict[bytes, bytes] = {}
    for address, pod in sorted(pods.items()):
        for container in containers_in_order(pod):
            for port in container.ports:
                if not port.host_port or pod.spec.host_network:
                    continue
                protocol, target = port.protocol.lower(), _TARGET.encode(address, port.container_port)
                if port.host_ip in ("", "0.0.0.0"):  # noqa: S104 - a meaning, no bind
                    to_any.setdefault(ANY.key.encode(protocol, port.host_port), target)
                else:
                    bound.setdefault(BOUND.key.encode(port.host_ip, protocol, port.host_port), target)
    commands: list[Command] = [DeleteTable(TABLE)]
    if to_any or bound:
        hairpin = {SELF.key.encode(address, address): None for address in pods}
        commands += [AddTable(TABLE), AddSet(TABLE, ANY), AddSet(TABLE, BOUND), AddSet(TABLE, SELF)]
        commands += [PutChain(TABLE, chain) for chain in _CHAINS]
        for target_set, elements in ((ANY, to_any), (BOUND, bound), (SELF, hairpin)):
            if elements:
                commands.append(AddElements(TABLE, target_set, elements))
    return Transaction(tuple(commands))


_TO_POD = (
    rule(Dnat("ip", Lookup(_BOUND_KEY, BOUND.name))),
    rule(IsLocal("daddr"), Dnat("ip", Lookup(_ANY_KEY, ANY.name))),
)
_CHAINS = (
    Chain(name="incoming", hook=Hook(type="nat", hook="prerouting", priority=BEFORE_PROXY), rules=_TO_POD),
    Chain(name="own", hook=Hook(type="nat", hook="output", priority=BEFORE_PROXY), rules=_TO_POD),
    Chain(
        name="returning",
        hook=Hook(type="nat", hook="postrouting", priority=AFTER),
        rules=(rule(IsDnatted(), InSet(_SELF_KEY, SELF.name), Masquerade()),),
    ),
)
