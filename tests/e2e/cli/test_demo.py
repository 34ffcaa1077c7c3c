"""The demo is a test: a whole cluster, the case topology, every path of it, and nothing left afterwards."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pilotage.cli.demo.checks import CHECKS

PILOTAGE = Path(sys.executable).with_name("pilotage")


@pytest.mark.timeout(280)
def test_every_check_of_the_demo_passes(tmp_path: Path) -> None:
    picture = tmp_path / "topology.svg"
    environment = {**os.environ, "PILOTAGE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [PILOTAGE, "demo", "--name", "demo-test", "--svg", picture],
        cwd=Path(__file__).parents[3],
        env=environment,
        text=True,
        capture_output=True,
        timeout=270,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, "\n".join(line for line in lines if not line.startswith("ok")) + done.stderr
    assert len([line for line in lines if line.startswith("ok")]) == len(CHECKS)
    drawn = "".join(ElementTree.fromstring(picture.read_text()).itertext())
    for part in ("shop.example.test", "zone-a · n1", "zone-b · n2", "db-0", "legacy.example.test"):
        assert part in drawn
    listed = subprocess.run([PILOTAGE, "ls"], env=environment, text=True, capture_output=True, check=True).stdout
    assert "demo-test" not in listed
