"""The real kubectl, of two versions, in all its everyday commands.

Each case is a file of `stories/`; `conftest` says how they read.
"""

import shutil
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

# The one this project is installed with, and whatever older one the machine has.
INSTALLED = str(Path(sys.executable).with_name("kubectl"))
MACHINES = shutil.which("kubectl", path="/usr/local/bin:/usr/bin:/bin")
PROGRAMS = {"installed": INSTALLED} | ({"machine": MACHINES} if MACHINES else {})
STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


def titled(path: Path) -> str:
    return path.read_text().splitlines()[0].removeprefix("# ")


@pytest.mark.parametrize("kubectl", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("story", STORIES, ids=titled)
def test_story(kubectl: str, story: Path, telling: dict[tuple[str, Path], "Future[None]"]) -> None:
    telling[kubectl, story].result()
