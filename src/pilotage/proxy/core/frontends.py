"""A plan read back as frontends: what clients address, and what becomes of them, in the words of no technology.

Stands apart because a plan is written in elements of nftables maps, which is its fastest form, while iptables and ipvs
want to be told one virtual address at a time. Fed with a plan, then with its changes; says which frontends each change
touched, so that a backend rewrites those only. Leaves out everything that the kernel learns by itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pilotage.nft.core.expressions import DROP, Verdict
from pilotage.nft.core.objects import ElementValue
from pilotage.nft.core.types import PORT, PROTOCOL, Layout
from pilotage.proxy.core.fragment import Frontend, SetId, Target
from pilotage.proxy.core.layout import GUARDED_CLASS, LOCAL_SLOTS, SLOTS_MAX, TableSets, refusal, sets
from pilotage.proxy.core.plan import Delta, Plan

Refusal = Literal["drop", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one kind of client gets: endpoints, or a refusal, or (neither) nothing of its own."""

    targets: tuple[tuple[Target, int], ...] = ()  # endpoint and weight, each endpoint once, in the order of slots
    refusal: Refusal | None = None  # None: not refused

    def __bool__(self) -> bool:
        return bool(self.targets) or self.refusal is not None


NOBODY = Side()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """Everything a plan says of one frontend."""

    inside: Side  # for pods and the node itself, and for outsiders unless `outside` says otherwise
    outside: Side  # false: as inside
    sources: tuple[tuple[bytes, bytes], ...] | None = None  # first and last address who may enter; None: everybody
    masqueraded: bool = False
    affinity_s: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """How the keys of one set lead to a frontend."""

    node_port: bool
    role: str  # inside, outside, slot, source, masqueraded or sticky


class Frontends:
    """The frontends of one address family, kept up to date element by element."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.cluster_ips: set[bytes] = set()
        self.hairpins: set[bytes] = set()  # endpoints of this node, which may be their own client
        self._elements: dict[Frontend, dict[tuple[str, bytes], ElementValue]] = {}

    def all(self) -> Iterable[Frontend]:
        return self._elements.keys()

    def load(self, plan: Plan) -> None:
        """Forget everything and hold `plan`."""
        self._elements.clear()
        self.cluster_ips.clear()
        self.hairpins.clear()
        for set_id, elements in plan.elements.items():
            self._put(set_id, elements)

    def change(self, delta: Delta) -> set[Frontend]:
        """Hold what `delta` leads to; returns the frontends it touched, `cluster_ips` and `hairpins` aside."""
        touched: set[Frontend] = set()
        for set_id, elements in delta.deleted.items():
            touched |= self._drop(set_id, elements)
        for set_id, elements in delta.added.items():
            touched |= self._put(set_id, elements)
        return touched

    def forwarding(self, frontend: Frontend) -> Forwarding | None:
        """What is planned for `frontend`; None: nothing any more."""
        elements = self._elements.get(frontend)
        if elements is None:
            return None
        slots: dict[int, Target] = {}
        classes = {"inside": 0, "outside": 0}
        sources: list[tuple[bytes, bytes]] = []
        masqueraded = False
        affinity_s = 0
        for (name, key), value in elements.items():
            match _places(self.family)[name].role:
                case "inside" | "outside" as side:
                    classes[side] = _number(value)
                case "slot":
                    assert isinstance(value, bytes)
                    slots[_number(key[-4:])] = value
                case "source":
                    sources.append(_range(self.family, key))
                case "masqueraded":
                    masqueraded = True
                case "sticky":
                    affinity_s = _timeout_s(value)
        inside, outside = (
            Side(targets=_targets(slots, classes[side]), refusal=_refusal(classes[side]))
            for side in ("inside", "outside")
        )
        return Forwarding(
            inside=inside,
            outside=outside,
            sources=tuple(sorted(sources)) if classes["inside"] & GUARDED_CLASS else None,
            masqueraded=masqueraded,
            affinity_s=affinity_s,
        )

    # ── elements ────────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, set_id: SetId, elements: Mapping[bytes, ElementValue]) -> set[Frontend]:
        family, name = set_id
        if family != self.family:
            return set()
        own = sets(family)
        if name == own.cluster_ips.name:
            self.cluster_ips |= elements.keys()
            return set()
        if name == own.hairpin.name:
            self.hairpins |= {key[: len(key) // 2] for key in elements}
            return set()
        touched = set()
        place = _places(family).get(name)
        if place is not None:
            for key, value in elements.items():
                frontend = _frontend(family, place, key)
                self._elements.setdefault(frontend, {})[name, key] = value
                touched.add(frontend)
        return touched

    def _drop(self, set_id: SetId, elements: Mapping[bytes, ElementValue]) -> set[Frontend]:
        family, name = set_id
        if family != self.family:
            return set()
        own = sets(family)
        if name == own.cluster_ips.name:
            self.cluster_ips -= elements.keys()
            return set()
        if name == own.hairpin.name:
            self.hairpins -= {key[: len(key) // 2] for key in elements}
            return set()
        touched = set()
        place = _places(family).get(name)
        if place is not None:
            for key in elements:
                frontend = _frontend(family, place, key)
                held = self._elements.get(frontend, {})
                held.pop((name, key), None)
                if not held:
                    self._elements.pop(frontend, None)
                touched.add(frontend)
        return touched


@cache
def _places(family: str) -> Mapping[str, _Place]:
    """What each set of the layout says; sets that no frontend owns are absent."""
    own: TableSets = sets(family)
    return {
        own.services.name: _Place(False, "inside"),
        own.external_services.name: _Place(False, "outside"),
        own.node_ports.name: _Place(True, "inside"),
        own.external_node_ports.name: _Place(True, "outside"),
        own.backends.name: _Place(False, "slot"),
        own.node_port_backends.name: _Place(True, "slot"),
        own.allowed_sources.name: _Place(False, "source"),
        own.masqueraded.name: _Place(False, "masqueraded"),
        own.masqueraded_node_ports.name: _Place(True, "masqueraded"),
        own.sticky.name: _Place(False, "sticky"),
        own.sticky_node_ports.name: _Place(True, "sticky"),
    }


_SUFFIX_SIZE = Layout((PROTOCOL, PORT)).size


def _frontend(family: str, place: _Place, key: bytes) -> Frontend:
    if place.node_port:
        return (family, b"", key[:_SUFFIX_SIZE])
    size = 4 if family == "ip" else 16
    return (family, key[:size], key[size : size + _SUFFIX_SIZE])


def _number(value: ElementValue) -> int:
    assert isinstance(value, bytes)
    return int.from_bytes(value, "little")


def _refusal(class_id: int) -> Refusal | None:
    verdict = refusal(class_id)
    return None if verdict is None else "drop" if verdict == DROP else "refuse"


def _timeout_s(value: ElementValue) -> int:
    """The verdict leads to the chain that remembers for so long."""
    assert isinstance(value, Verdict)
    return int(value.chain.rpartition("-")[2])


def _range(family: str, key: bytes) -> tuple[bytes, bytes]:
    size, half = (4 if family == "ip" else 16), len(key) // 2
    return key[half - size : half], key[-size:]


def _targets(slots: Mapping[int, Target], class_id: int) -> tuple[tuple[Target, int], ...]:
    """The endpoints of a class; a weight is an endpoint that stands in several slots."""
    if refusal(class_id) is not None:
        return ()
    first = LOCAL_SLOTS if class_id & LOCAL_SLOTS else 1
    weights: dict[Target, int] = {}
    for slot in range(first, first + (class_id & SLOTS_MAX)):
        weights[slots[slot]] = weights.get(slots[slot], 0) + 1
    return tuple(weights.items())
