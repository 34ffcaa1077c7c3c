"""Manifests → the elements of the tables as nft text; `PILOTAGE_GOLDEN=1` rewrites, the author reads the difference.

`layout.out.nft` is the constant part, once; a case shows only what its Services add to it.
"""

import os
from pathlib import Path

import pytest

from pilotage.api.codec import convert, load_yaml
from pilotage.api.core_v1 import Service
from pilotage.api.discovery_v1 import EndpointSlice
from pilotage.nft.core.objects import PutChain, Transaction, render
from pilotage.proxy.core.commands import element_commands, structure_commands
from pilotage.proxy.core.fragment import chain_of
from pilotage.proxy.core.layout import Surroundings, table
from pilotage.proxy.core.model import Problem, service_ports
from pilotage.proxy.core.plan import Planner
from pilotage.proxy.core.topology import NodeView

TESTDATA = Path(__file__).parent / "testdata"
CASES = sorted(TESTDATA.glob("*.in.yaml"))
KINDS: dict[str, type[Service] | type[EndpointSlice]] = {"Service": Service, "EndpointSlice": EndpointSlice}


def check(golden: Path, text: str) -> None:
    if os.environ.get("PILOTAGE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


def test_layout() -> None:
    surroundings = Surroundings(cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"))
    check(TESTDATA / "layout.out.nft", render(Transaction(structure_commands((), ("ip", "ip6"), surroundings))))


@pytest.mark.parametrize("case", CASES, ids=[case.name.removesuffix(".in.yaml") for case in CASES])
def test_golden(case: Path) -> None:
    objects = [convert(KINDS[document["kind"]], document) for document in load_yaml(case.read_text())]
    planner, problems = Planner(NodeView(name="n1", zone="zone-a")), list[Problem]()
    for service in objects:
        if isinstance(service, Service):
            own = [
                one
                for one in objects
                if isinstance(one, EndpointSlice)
                and (one.metadata.namespace, one.service_name) == (service.metadata.namespace, service.metadata.name)
            ]
            ports = service_ports(service, own, problems)
            planner.update(service.metadata.key, ports, age=service.metadata.creation_timestamp, problems=problems)
    plan = planner.plan()
    chains = tuple(PutChain(table(chain[0]), chain_of(chain)) for chain in sorted(plan.chains))
    elements = {set_id: plan.elements[set_id] for set_id in sorted(plan.elements)}
    text = render(Transaction(chains + element_commands({}, elements)))
    text += "".join(f"# {problem.service} {problem.reason}: {problem.message}\n" for problem in problems)
    check(case.with_name(case.name.replace(".in.yaml", ".out.nft")), text)
