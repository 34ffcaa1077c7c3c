"""Starting conmon: what is left open when it cannot be started."""

import os
from pathlib import Path

import pytest

from pilotage.agent.runtime import ContainerSpec
from pilotage.agent.runtime.conmon import Conmon


async def test_a_monitor_that_cannot_be_started_leaves_no_descriptor(tmp_path: Path) -> None:
    conmon = Conmon(str(tmp_path / "absent"), runtime="runc", root=tmp_path, exits=tmp_path)
    spec = ContainerSpec(container_id="c", document={"process": {"terminal": False}}, log_path=tmp_path / "log")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="absent"):
        await conmon.create(spec, tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before
