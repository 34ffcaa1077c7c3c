"""The fake keeps the promises of the seam."""

from pathlib import Path

import pytest

from pilotage.network import FakeWiring
from pilotage.network.wiring import host_interface_name, mac_for
from pilotage.testing.wiring_suite import WiringSuite


class TestFakeWiring(WiringSuite):
    @pytest.fixture
    def wiring(self) -> FakeWiring:
        return FakeWiring()

    @pytest.fixture
    def directory(self) -> Path:
        return Path("/run/netns")


def test_the_interface_name_fits_and_depends_on_namespace_and_interface() -> None:
    names = {
        host_interface_name(Path(path), interface)
        for path in ("/run/netns/a", "/run/netns/b")
        for interface in ("eth0", "eth1")
    }
    assert len(names) == 4
    assert all(len(name) <= 15 for name in names)


def test_the_mac_is_unicast_and_locally_administered() -> None:
    first = int(mac_for("10.244.1.5/24").split(":")[0], 16)
    assert first & 0b01 == 0
    assert first & 0b10 == 0b10
