"""Which tracked flows and remembered clients point where nothing is any more.

The kernel decides where a connection goes once, at its first packet. A UDP "connection" never ends while packets keep
coming, so after a change of endpoints its memory must be deleted; a remembered client likewise. An established TCP
connection belongs to its two ends and is left alone. But a first packet that nobody answered is sent again, and where a
reset connection went is kept for ten seconds and would be where the next one from the same port goes: both are
forgotten when their endpoint goes. Not covered: a connection that is reset only after that, say when a terminating pod
ends. Fed with the planner's view; the proxier carries the verdicts out.
"""

from collections.abc import Iterator, Mapping, Set

from pilotage.nft.core.objects import ElementValue
from pilotage.nft.core.types import PORT, PROTOCOL, encode_address
from pilotage.proxy.core.fragment import Frontend, SetId, Sources, Target
from pilotage.proxy.core.layout import sets
from pilotage.proxy.core.plan import Delta, Plan

_TCP, _UDP = 6, 17


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def target_of(address: str, port: int) -> Target:
    """As the maps have it."""
    return encode_address(address, 16 if ":" in address else 4) + PORT.encode(port)


def tcp_targets(plan: Plan) -> frozenset[Target]:
    """Every TCP endpoint of both families."""
    return frozenset(target for _, target in _led_to(plan.elements))


def tcp_targets_gone(delta: Delta) -> frozenset[Target]:
    """The TCP endpoints that one of their Services has no more."""
    return frozenset(target for _, target in set(_led_to(delta.deleted)) - set(_led_to(delta.added)))


def _led_to(elements: Mapping[SetId, Mapping[bytes, ElementValue]]) -> Iterator[tuple[bytes, Target]]:
    """TCP frontends, as the maps' keys begin, each with every endpoint among these elements."""
    for family in ("ip", "ip6"):
        for backends in (sets(family).backends, sets(family).node_port_backends):
            for key, target in elements.get((family, backends.name), {}).items():
                # A key ends with protocol, port and slot, four bytes each.
                if key[-12] == _TCP and isinstance(target, bytes):
                    yield key[:-4], target


def is_stale_flow(
    udp: Mapping[Frontend, frozenset[Target]],
    guarded: Mapping[Frontend, Sources],
    removed: Set[Frontend],
    *,
    source: str,
    destination: str,
    destination_port: int,
    reply_source: str,
    reply_source_port: int,
) -> bool:
    """Whether a UDP flow to `destination` is answered by what is no endpoint of it, or comes from where none may.

    `udp`: all UDP frontends now; `guarded`: who may use those that not everybody may; `removed`: those that were, and
    whose translated flows must therefore end.
    """
    family = _family(destination)
    size = 16 if family == "ip6" else 4
    suffix = PROTOCOL.encode(_UDP) + PORT.encode(destination_port)
    frontend: Frontend = (family, encode_address(destination, size), suffix)
    target = target_of(reply_source, reply_source_port)
    if frontend in udp:
        if frontend in guarded:
            client = encode_address(source, size)
            if not any(low <= client <= high for low, high in guarded[frontend]):
                return True
        # Also true of a flow that began before there was an endpoint and so was never translated.
        return target not in udp[frontend]
    if (destination, destination_port) == (reply_source, reply_source_port):
        return False  # not translated: none of ours
    if frontend in removed:
        return True
    node_port: Frontend = (family, b"", suffix)
    return node_port in removed or (node_port in udp and target not in udp[node_port])


def stale_clients(
    family: str, remembered: Mapping[bytes, ElementValue], sticky: Mapping[Frontend, frozenset[Target]]
) -> list[bytes]:
    """Keys of the affinity map that lead to an endpoint their Service no longer has."""
    affinity = sets(family).affinity
    stale = []
    for key, target in remembered.items():
        _, address, protocol, port = affinity.key.split(key)
        node_port: frozenset[Target] = sticky.get((family, b"", protocol + port), frozenset())
        if target not in sticky.get((family, address, protocol + port), node_port):
            stale.append(key)
    return stale
