"""In which order elements come and go where one batch cannot hold them all."""

from pilotage.nft.core.objects import AddElements, DeleteElements
from pilotage.proxy.backends.fake import FakeBackend
from pilotage.proxy.core.commands import in_parts
from pilotage.proxy.core.layout import Surroundings
from pilotage.proxy.core.model import service_ports
from pilotage.proxy.core.plan import Plan, Planner, difference
from pilotage.proxy.core.topology import NodeView
from pilotage.testing.services import make_service, make_slice

NOTHING = Plan(elements={}, chains=frozenset())


def plan() -> Plan:
    planner = Planner(NodeView(name="n1"))
    service = make_service(ports=["80@30080"], type="NodePort")
    planner.update("default/web", service_ports(service, [make_slice(endpoints=["10.244.1.2@n1"])]))
    return planner.plan()


def order(old: Plan, new: Plan) -> list[str]:
    """The sets, as their elements come and go one by one."""
    delta = difference(old, new)
    commands = [command for part in in_parts(delta.deleted, delta.added, 1) for command in part]
    names = [command.set.name for command in commands if isinstance(command, AddElements | DeleteElements)]
    return list(dict.fromkeys(names))


def test_no_address_leads_to_an_endpoint_that_has_not_come_and_none_is_refused_that_will_lead_on() -> None:
    found = order(NOTHING, plan())
    assert found[:2] == ["backends", "node-port-backends"]
    assert found[-1] == "cluster-ips"


def test_endpoints_go_last() -> None:
    assert order(plan(), NOTHING)[-2:] == ["backends", "node-port-backends"]


def test_repairs_keep_the_order() -> None:
    backend = FakeBackend(families=("ip",), surroundings=Surroundings())
    names = [name for _, name in backend.parts]
    assert names[1:3] == ["backends", "node-port-backends"]
    assert names[-1] == "cluster-ips"
