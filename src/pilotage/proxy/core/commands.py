"""Plans as commands for nf_tables: in which order tables, sets, chains and elements come and go.

Stands apart from the backend because order is all there is to decide, and orders can be tried in a table. Called by the
nftables backend, and by goldens that print what a plan means.
"""

from collections.abc import Iterable, Mapping

from pilotage.nft.core.objects import (
    AddElements,
    AddSet,
    AddTable,
    Chain,
    Command,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    ElementValue,
    PutChain,
    Table,
)
from pilotage.proxy.core.fragment import ChainId, SetId, chain_of
from pilotage.proxy.core.layout import Surroundings, sets, static_chains, table


def structure_commands(
    chains: Iterable[ChainId], families: Iterable[str], surroundings: Surroundings
) -> tuple[Command, ...]:
    """Tables, sets and chains, each after what it names."""
    commands: list[Command] = []
    wanted = sorted(chains)
    for family in families:
        own = table(family)
        commands.append(AddTable(own))
        commands += [AddSet(own, one) for one in sets(family).all()]
        commands += [PutChain(own, chain) for chain in static_chains(family, surroundings)]
        commands += [PutChain(own, chain_of(chain)) for chain in wanted if chain[0] == family]
    return tuple(commands)


def structure_repair(whole: Iterable[Command], names: Mapping[str, str]) -> tuple[Command, ...]:
    """Those of `whole` that set right what `names` says is missing or changed, by `table`, `set NAME`, `chain NAME`."""
    commands: list[Command] = []
    for command in whole:
        match command:
            case AddTable() if "table" in names:
                commands.append(command)
            case AddSet() if f"set {command.set.name}" in names:
                commands.append(command)
            case PutChain(owner, chain) if f"chain {chain.name}" in names:
                if chain.hook is not None and names[f"chain {chain.name}"] == "changed":
                    commands.append(DeleteChain(owner, chain.name))  # a hook cannot be moved
                commands.append(command)
    return tuple(commands)


def stray_removal(own: Table, names: Iterable[str]) -> tuple[Command, ...]:
    """Remove chains and sets, `chain NAME` and `set NAME`, that may name each other."""
    chains = [name.removeprefix("chain ") for name in names if name.startswith("chain ")]
    return (
        *(PutChain(own, Chain(name=name)) for name in chains),
        *(DeleteChain(own, name) for name in chains),
        *(DeleteSet(own, name.removeprefix("set ")) for name in names if name.startswith("set ")),
    )


def element_commands(
    deleted: Mapping[SetId, Mapping[bytes, ElementValue]], added: Mapping[SetId, Mapping[bytes, ElementValue]]
) -> tuple[Command, ...]:
    """Deletions, then additions: a changed element is both."""
    commands: list[Command] = []
    for set_id, keys in deleted.items():
        commands.append(DeleteElements(table(set_id[0]), sets(set_id[0]).by_name(set_id[1]), keys))
    for set_id, elements in added.items():
        commands.append(AddElements(table(set_id[0]), sets(set_id[0]).by_name(set_id[1]), elements))
    return tuple(commands)


def filling_order(name: str) -> int:
    """By set: endpoints, then the addresses that lead to them, then those that are refused if nothing leads on."""
    return 0 if name.endswith("backends") else 2 if name == "cluster-ips" else 1


def in_parts(
    deleted: Mapping[SetId, Mapping[bytes, ElementValue]],
    added: Mapping[SetId, Mapping[bytes, ElementValue]],
    size: int,
) -> Iterable[tuple[Command, ...]]:
    """The same commands in batches of `size` keys: endpoints that come, then addresses, then endpoints that go."""
    steps: list[list[tuple[SetId, bytes]]] = [[], [], [], []]
    for set_id in sorted(deleted.keys() | added.keys()):
        gone, come = deleted.get(set_id, {}), added.get(set_id, {})
        order = filling_order(set_id[1])
        for key in gone.keys() | come.keys():
            steps[order if order or key in come else 3].append((set_id, key))
    for step in steps:
        for start in range(0, len(step), size):
            part = step[start : start + size]
            here: tuple[dict[SetId, dict[bytes, ElementValue]], ...] = ({}, {})
            for set_id, key in part:
                for side, content in zip((deleted, added), here, strict=True):
                    if key in side.get(set_id, {}):
                        content.setdefault(set_id, {})[key] = side[set_id][key]
            yield element_commands(*here)
