"""The iptables backend: plans into chains `PILOTAGE-*` of the tables nat and filter, for hosts without nftables.

Apart from `core` because it talks to the kernel through the `Xtables` seam. A change rewrites the chains it concerns in
one restore; a restart compares with what iptables-save prints and rewrites what differs. Rules of others are left as
they are. What it cannot do as well as nftables, because iptables cannot: the legacy flavour replaces a whole table at
every change, and the kernel remembers few sticky clients (`xt_recent.ip_list_tot`, 100 an endpoint unless set at boot).

Specification: iptables-restore(8), iptables-extensions(8).
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilotage.kit.clock import SYSTEM_CLOCK, Clock
from pilotage.nft.core.objects import ElementValue
from pilotage.proxy.backends.xtables import Xtables
from pilotage.proxy.core.drift import Drift, Part
from pilotage.proxy.core.fragment import Frontend, SetId, Target
from pilotage.proxy.core.iptables import PROBE_RECENT, ChainName, Rules, RuleSet
from pilotage.proxy.core.layout import Surroundings, sets
from pilotage.proxy.core.model import SESSION_AFFINITY_NOT_KEPT
from pilotage.proxy.core.plan import Delta, Plan
from pilotage.proxy.core.restore import Changes, compare_chains, read_save, removal, repair
from pilotage.proxy.errors import BackendError
from pilotage.telemetry import get_logger

# Where nobody counts changes, looking costs a listing of everything: at most this share of the time goes into it.
_LOOKING_SHARE = 0.05
_LOOKING_ANYWAY_S = 30.0  # where somebody counts: a change by others in the very moment of our own is found then
# iptables-save prints all or nothing.
_EVERYTHING: Part = ("", "")
_NO_MEMORY = "this kernel's iptables cannot remember clients: it has no match `recent`"
_CLIENTS_MAX = Path("/sys/module/xt_recent/parameters/ip_list_tot")

_log = get_logger()


class IptablesBackend:
    """Holds the chains it wrote, to compare; the kernel is the state."""

    inline_elements_max = 0  # every change is a program that runs, so none belongs on the event loop
    parts: tuple[Part, ...] = (_EVERYTHING,)

    def __init__(
        self,
        xtables: Xtables,
        *,
        families: Sequence[str] = ("ip",),
        surroundings: Surroundings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._xtables = xtables
        self._families = tuple(families)
        self._surroundings = surroundings
        self._clock = clock
        self._rules: dict[str, RuleSet] = {}
        self._generation: int | None = None
        self._look_at = 0.0  # when the next listing is due, whatever was counted
        self._overtaken = False  # somebody changed something before our last change
        # Chains that iptables-save spells otherwise than we do, as another version may: what we wrote, what it printed.
        self._spelled: dict[tuple[str, ChainName], tuple[Rules, Rules]] = {}
        self._remembers: dict[str, bool] = {}  # families probed, once a Service asked for affinity

    @property
    def limits(self) -> Mapping[str, str]:
        without = sorted(family for family, remembers in self._remembers.items() if not remembers)
        return {SESSION_AFFINITY_NOT_KEPT: f"{_NO_MEMORY} ({', '.join(without)})"} if without else {}

    def sync(self, plan: Plan) -> int:
        self._load(plan)
        started = self._clock.monotonic()
        changes = sum(self._repair(family, self._actual(family)) for family in self._families)
        self._looked(started, self._xtables.generation())
        return changes

    def apply(self, delta: Delta) -> None:
        for family in self._families:
            if _is_sticky(family, delta.added) and family not in self._remembers:
                self._probe(family)
                self._rules[family].remembers = self._remembers[family]
        for family, rules in self._rules.items():
            touched = rules.frontends.change(delta)
            changed = rules.update(touched, _cluster_ips(family, delta.deleted) | _cluster_ips(family, delta.added))
            self._overtaken = self._overtaken or self._xtables.generation() != self._generation
            self._restore(family, Changes(chains=changed))
            self._generation = self._xtables.generation()

    def forget_clients(self, family: str, sticky: Mapping[Frontend, frozenset[Target]]) -> int:
        """Nothing to do: an endpoint's clients are remembered by its own chain and go with it."""
        return 0

    def disturbed(self) -> tuple[Part, ...]:
        counted = self._overtaken or self._xtables.generation() != self._generation
        return self.parts if counted or self._clock.monotonic() >= self._look_at else ()

    def look(self, part: Part) -> Mapping[bytes, ElementValue]:
        return {}  # a listing beside a restore would show a table half done: `judge` looks

    def judge(
        self, part: Part, seen: Mapping[bytes, ElementValue], wanted: Mapping[bytes, ElementValue]
    ) -> tuple[Drift, ...]:
        return self._compare(repair=True)

    def after(self, part: Part) -> tuple[Part, ...]:
        return ()

    def check(self, plan: Plan) -> tuple[Drift, ...]:
        if not self._rules:
            # A process that only looks must not probe the kernel: whoever wrote the rules did.
            self._remembers = {family: "-m recent " in self._xtables.save(family) for family in self._families}
            self._load(plan)
        return self._compare(repair=False)

    def _compare(self, *, repair: bool) -> tuple[Drift, ...]:
        started, generation = self._clock.monotonic(), self._xtables.generation()
        found: list[Drift] = []
        for family in self._families:
            actual = self._actual(family)
            drift = compare_chains(family, self._rules[family].chains(), actual)
            found += drift
            if drift and repair:
                self._repair(family, actual)
                generation = self._xtables.generation()
        self._looked(started, generation)
        self._overtaken = bool(found) and not repair  # what was seen and left is still to be repaired
        return tuple(found)

    def cleanup(self) -> None:
        if not self._xtables.is_installed():
            return  # then nothing here was made by it
        for family in ("ip", "ip6"):
            try:
                changes = removal(read_save(self._xtables.save(family)))
            except BackendError:
                if family == "ip":
                    raise
                continue  # a host without IPv6 holds none of it
            self._restore(family, changes)

    def close(self) -> None:
        self._xtables.close()

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _load(self, plan: Plan) -> None:
        for family in self._families:
            if _is_sticky(family, plan.elements) and family not in self._remembers:
                self._probe(family)
        self._rules = {
            family: RuleSet(family, self._surroundings, remembers=self._remembers.get(family, True))
            for family in self._families
        }
        for rules in self._rules.values():
            rules.frontends.load(plan)
            rules.load()

    def _repair(self, family: str, actual: dict[ChainName, Rules]) -> int:
        """Returns the rules it wrote. A second listing follows a first write, to learn how this version spells."""
        wanted = self._rules[family].chains()
        changes = repair(wanted, actual)
        if not changes:
            return 0
        self._restore(family, changes)
        printed = read_save(self._xtables.save(family))
        for name, rules in wanted.items():
            there = printed.get(name)
            if there is not None and there != rules and len(there) == len(rules):
                self._spelled[family, name] = (rules, there)
        return changes.size

    def _actual(self, family: str) -> dict[ChainName, Rules]:
        """The chains that are there, in our spelling."""
        actual = read_save(self._xtables.save(family))
        for (of, name), (ours, printed) in self._spelled.items():
            if of == family and actual.get(name) == printed:
                actual[name] = ours
        return actual

    def _restore(self, family: str, changes: Changes) -> None:
        if changes:
            self._xtables.restore(family, changes.text())

    def _looked(self, started: float, generation: int | None) -> None:
        """A look at everything began at `started`, and there were no changes by others after `generation`."""
        now = self._clock.monotonic()
        self._look_at = now + max((now - started) / _LOOKING_SHARE, 0.0 if generation is None else _LOOKING_ANYWAY_S)
        self._generation, self._overtaken = generation, False

    def _probe(self, family: str) -> None:
        """Find out whether this kernel can remember clients, and say what it cannot."""
        try:
            for text in PROBE_RECENT:
                self._xtables.restore(family, text)
        except BackendError as error:
            self._remembers[family] = False
            _log.error(_NO_MEMORY, family=family, error=str(error))
            return
        self._remembers[family] = True
        with contextlib.suppress(OSError, ValueError):  # not readable: nothing to tell
            clients_max = int(_CLIENTS_MAX.read_text())
            _log.warning(
                "clients beyond this many lose their endpoint, the one longest silent first",
                clients_per_endpoint_max=clients_max,
                set_at_boot="xt_recent.ip_list_tot",
            )


def _cluster_ips(family: str, elements: Mapping[SetId, Mapping[bytes, ElementValue]]) -> set[bytes]:
    return set(elements.get((family, sets(family).cluster_ips.name), ()))


def _is_sticky(family: str, elements: Mapping[SetId, Mapping[bytes, ElementValue]]) -> bool:
    own = sets(family)
    return bool(elements.get((family, own.sticky.name)) or elements.get((family, own.sticky_node_ports.name)))
