"""kill -9 at random moments. PILOTAGE_CRASHES says how often; a run of hundreds is `python -m bench crashes`."""

import os
import random
from pathlib import Path

from pilotage.testing.crashes import CrashRun

KILLS = int(os.environ.get("PILOTAGE_CRASHES", "10"))


async def test_a_killed_server_loses_nothing_repeats_nothing_and_invents_nothing(tmp_path: Path) -> None:
    report = await CrashRun(tmp_path, seed=random.randrange(1 << 32)).run(KILLS)
    assert report.kills >= KILLS
    assert report.acknowledged > KILLS
    assert report.events > 0
