"""What is missing is named with the command that installs it."""

import pytest

from pilotage.kit import PilotageError
from pilotage.up.preflight import preflight


def test_everything_missing_is_named_at_once() -> None:
    with pytest.raises(PilotageError) as caught:
        preflight(find=lambda name: None)
    assert "missing runc or crun, conmon, nft: as root run `apt-get install runc conmon nftables`" in str(caught.value)


def test_one_of_two_runtimes_is_enough() -> None:
    with pytest.raises(PilotageError) as caught:
        preflight(find=lambda name: "/usr/bin/crun" if name == "crun" else None)
    assert "runc" not in str(caught.value)
