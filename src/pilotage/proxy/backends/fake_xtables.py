"""iptables in memory: the same texts, the same refusals, no kernel and no programs.

It ships with the package so that the iptables backend can be tested anywhere; the tests in namespaces hold the real one
to the same answers. Rules are text to it: what they mean, packets show.
"""

from pilotage.proxy.core.iptables import HOOKS, ChainName, Rules
from pilotage.proxy.core.restore import TABLES, read_save
from pilotage.proxy.errors import BackendError

_FINAL = frozenset(("ACCEPT", "DROP", "RETURN", "REJECT", "DNAT", "MASQUERADE"))


class FakeXtables:
    """`chains` is what the kernel would hold. `refuse_next` makes the next restore fail, to test retries."""

    def __init__(self) -> None:
        self.chains: dict[str, dict[ChainName, Rules]] = {family: dict.fromkeys(HOOKS, ()) for family in ("ip", "ip6")}
        self.refuse_next = False
        self._generation = 0

    def restore(self, family: str, text: str) -> None:
        if self.refuse_next:
            self.refuse_next = False
            raise BackendError("refused, as told")
        for part in text.split("COMMIT\n"):
            if part:
                self.chains[family] = self._table(dict(self.chains[family]), part)
        self._generation += 1

    def save(self, family: str) -> str:
        lines: list[str] = []
        for table in TABLES:
            own = {chain: rules for (of, chain), rules in self.chains[family].items() if of == table}
            lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in own)]
            lines += [f"-A {chain} {rule}" for chain, rules in own.items() for rule in rules]
            lines.append("COMMIT")
        return "\n".join((*lines, ""))

    def is_installed(self) -> bool:
        return True

    def generation(self) -> int | None:
        return self._generation

    def close(self) -> None:
        """Nothing is held."""

    def _table(self, chains: dict[ChainName, Rules], text: str) -> dict[ChainName, Rules]:
        table, *lines = text.splitlines()
        name = table.removeprefix("*")
        chains |= {place: () for place in read_save(text) if (name, place[1]) in _declared(name, lines)}
        for line in lines:
            word, _, rest = line.partition(" ")
            chain, _, rule = rest.partition(" ")
            place = (name, chain)
            if word.startswith(":"):
                continue
            if place not in chains:
                raise BackendError(f"no chain {chain}")
            if word == "-A":
                chains[place] = (*chains[place], rule)
            elif word == "-I":
                chains[place] = (rule.removeprefix("1 "), *chains[place])
            elif word == "-D":
                if rule not in chains[place]:
                    raise BackendError(f"no rule {rule}")
                at = chains[place].index(rule)
                chains[place] = chains[place][:at] + chains[place][at + 1 :]
            elif word == "-X" and chains.pop(place):
                raise BackendError(f"chain {chain} is not empty")
        _require_targets(name, chains)
        return chains


def _declared(table: str, lines: list[str]) -> set[ChainName]:
    return {(table, line[1:].split(" ", 1)[0]) for line in lines if line.startswith(":")}


def _require_targets(table: str, chains: dict[ChainName, Rules]) -> None:
    """A rule may only lead to a chain that is there: the kernel refuses the rest."""
    for (of, chain), rules in chains.items():
        for rule in rules if of == table else ():
            words = rule.split()
            target = words[max(words.index(word) for word in ("-j", "-g") if word in words) + 1]
            if target not in _FINAL and (table, target) not in chains:
                raise BackendError(f"{chain} leads to {target}, which is not there")
