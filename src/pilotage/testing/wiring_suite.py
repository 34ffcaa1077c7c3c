"""What every `Wiring` must keep: run on the fake by the unit tests and on the kernel by the netns tests.

Stands apart so that fake and kernel cannot drift: both test files inherit from `WiringSuite` and only make the subject.
"""

from pathlib import Path

import pytest

from pilotage.network import NamespaceGone, NetworkError, Route, Wiring

ADDRESS, GATEWAY, BRIDGE = "10.244.1.5/24", "10.244.1.1", "cni0"


class WiringSuite:
    """Inherit, and give a `wiring` fixture and a `directory` fixture for namespace files."""

    def prepare(self, wiring: Wiring, directory: Path) -> Path:
        """A bridge and a namespace to join to it."""
        wiring.ensure_bridge(BRIDGE, addresses=(f"{GATEWAY}/24",))
        namespace = directory / "one"
        wiring.create_namespace(namespace)
        return namespace

    def test_attach_says_what_it_made(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        made = wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY)
        assert made.address == "10.244.1.5/32"
        assert made.mac == "02:50:0a:f4:01:05"
        assert len(made.host_interface) == 15
        assert wiring.attachments(BRIDGE) == (namespace,)

    def test_attach_may_be_repeated(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        first = wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY)
        assert wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY) == first
        assert wiring.attachments(BRIDGE) == (namespace,)

    def test_attach_with_another_address_replaces_the_connection(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY)
        again = wiring.attach(namespace, bridge=BRIDGE, address="10.244.1.6/24", gateway=GATEWAY)
        assert again.address == "10.244.1.6/32"
        assert wiring.attachments(BRIDGE) == (namespace,)

    def test_an_unrouted_attachment_keeps_its_prefix(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        made = wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY, routed=False)
        assert made.address == ADDRESS

    def test_an_attachment_may_have_an_address_of_either_family(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        further = [("fd00:244:0:1::5/64", "fd00:244:0:1::1")]
        made = wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY, further=further)
        assert (made.address, made.further) == ("10.244.1.5/32", ("fd00:244:0:1::5/128",))
        assert wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY, further=further) == made

    def test_attaching_a_namespace_that_is_gone_says_so(self, wiring: Wiring, directory: Path) -> None:
        self.prepare(wiring, directory)
        with pytest.raises(NamespaceGone):
            wiring.attach(directory / "absent", bridge=BRIDGE, address=ADDRESS)

    def test_attaching_to_a_bridge_that_is_absent_fails(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        with pytest.raises(NetworkError, match="absent0"):
            wiring.attach(namespace, bridge="absent0", address=ADDRESS)

    def test_detach_undoes_attach_and_may_be_repeated(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        wiring.attach(namespace, bridge=BRIDGE, address=ADDRESS, gateway=GATEWAY)
        wiring.detach(namespace)
        wiring.detach(namespace)
        assert wiring.attachments(BRIDGE) == ()

    def test_creating_and_deleting_a_namespace_may_be_repeated(self, wiring: Wiring, directory: Path) -> None:
        namespace = self.prepare(wiring, directory)
        wiring.create_namespace(namespace)
        wiring.delete_namespace(namespace)
        wiring.delete_namespace(namespace)
        with pytest.raises(NamespaceGone):
            wiring.set_sysctls({"net.ipv4.ip_forward": "1"}, namespace=namespace)

    def test_routes_are_exactly_those_asked_for(self, wiring: Wiring, directory: Path) -> None:
        self.prepare(wiring, directory)
        both = (
            Route(destination="10.244.2.0/24", via=("10.244.1.9",)),
            Route(destination="10.96.0.0/16", via=("10.244.1.9", "10.244.1.8")),
        )
        wiring.ensure_routes(both)
        wiring.ensure_routes(both)
        wiring.ensure_routes(both[1:])
        wiring.ensure_routes(())
