"""Chains of iptables rules as the text of iptables-restore and iptables-save, and how to get from one to the other.

Stands apart from `iptables` because it knows no Service: names, rules and whose they are. Fed by the iptables backend
and by the fake that stands in for the kernel. Leaves out counters and comments.

Specification: iptables-restore(8) with --noflush: a chain that is declared is emptied, others stay as they are; a table
is replaced as a whole at its COMMIT.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.iptables import HOOKS, PREFIX, ChainName, Chains, Rules

# In this order: what is not forwarded any more is refused before it stops being translated.
TABLES = ("filter", "nat")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What one restore changes."""

    chains: Mapping[ChainName, Rules | None]  # new content; None: the chain goes
    commands: tuple[tuple[str, str], ...] = ()  # table and a line for the chains of the kernel, in order

    def __bool__(self) -> bool:
        return bool(self.chains or self.commands)

    @property
    def size(self) -> int:
        """Rules written and chains removed."""
        return sum(len(rules or "-") for rules in self.chains.values()) + len(self.commands)

    def text(self) -> str:
        """The input of iptables-restore."""
        lines: list[str] = []
        for table in TABLES:
            own = {chain: rules for (of, chain), rules in sorted(self.chains.items()) if of == table}
            commands = [line for of, line in self.commands if of == table]
            if not own and not commands:
                continue
            lines.append(f"*{table}")
            lines += [f":{chain} - [0:0]" for chain in own]
            lines += [f"-A {chain} {rule}" for chain, rules in own.items() for rule in rules or ()]
            lines += commands
            lines += [f"-X {chain}" for chain, rules in own.items() if rules is None]
            lines.append("COMMIT")
        return "\n".join((*lines, "")) if lines else ""


def read_save(text: str) -> dict[ChainName, Rules]:
    """Every chain that iptables-save printed."""
    chains: dict[ChainName, list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            chains.setdefault((table, line[1:].split(" ", 1)[0]), [])
        elif line.startswith("-A "):
            _, chain, rule = (*line.rstrip().split(" ", 2), "")[:3]
            chains.setdefault((table, chain), []).append(rule)
    return {name: tuple(rules) for name, rules in chains.items()}


def repair(wanted: Chains, actual: Chains) -> Changes:
    """What makes our chains as `wanted`, and has the kernel's lead to them once each, whoever else has rules there."""
    chains: dict[ChainName, Rules | None] = {name: None for name in _own(actual) if name not in wanted}
    chains |= {name: rules for name, rules in wanted.items() if actual.get(name) != rules}
    commands: list[tuple[str, str]] = []
    for (table, chain), hook in HOOKS.items():
        leading = [rule for rule in actual.get((table, chain), ()) if _leads_to_us(rule)]
        if leading != [hook]:
            # First of all rules, as what others accept or drop early would never reach a Service.
            commands += [(table, f"-D {chain} {rule}") for rule in leading] + [(table, f"-I {chain} 1 {hook}")]
    return Changes(chains=chains, commands=tuple(commands))


def removal(actual: Chains) -> Changes:
    """What removes every trace of us."""
    commands = [
        (table, f"-D {chain} {rule}")
        for (table, chain), rules in actual.items()
        if not chain.startswith(PREFIX) and table in TABLES
        for rule in rules
        if _leads_to_us(rule)
    ]
    return Changes(chains=dict.fromkeys(_own(actual)), commands=tuple(commands))


def compare_chains(family: str, wanted: Chains, actual: Chains) -> tuple[Drift, ...]:
    """How `actual` differs, rule by rule, for people."""
    found: list[Drift] = []

    def add(name: ChainName, kind: str, rules: Iterable[str]) -> None:
        found.extend(Drift(family=family, set=" ".join(name), kind=kind, element=rule) for rule in rules)

    for name in sorted(wanted.keys() | _own(actual)):
        there, here = actual.get(name), wanted.get(name)
        if here is None or there is None:
            add(name, "missing" if there is None else "unexpected", here or there or ("empty chain",))
        elif there != here:
            missing, unexpected = _without(here, there), _without(there, here)
            add(name, "missing", missing)
            add(name, "unexpected", unexpected)
            if not missing and not unexpected:
                add(name, "changed", ("order of rules",))
    for name, hook in HOOKS.items():
        leading = [rule for rule in actual.get(name, ()) if _leads_to_us(rule)]
        add(name, "missing", () if hook in leading else (hook,))
        add(name, "unexpected", _without(leading, (hook,)))
    return tuple(found)


def _own(chains: Chains) -> list[ChainName]:
    return [name for name in chains if name[0] in TABLES and name[1].startswith(PREFIX)]


def _leads_to_us(rule: str) -> bool:
    return f" {PREFIX}" in rule


def _without(rules: Iterable[str], others: Iterable[str]) -> list[str]:
    """`rules` less those in `others`, each as often as it stands there."""
    left = list(others)
    found = []
    for rule in rules:
        if rule in left:
            left.remove(rule)
        else:
            found.append(rule)
    return found
