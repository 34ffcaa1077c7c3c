"""Holes between objects are filled, so that what comes next lies elsewhere."""

import subprocess
import sys

# In an interpreter of its own: whatever else allocates would take part.
SCRIPT = """
from pilotage.kit.memory import fill_holes

def pools(objects):
    return {id(one) // (16 * 1024) for one in objects}

def make(count):
    return [bytes(size) for size in (20, 100, 400, 700, 3000) for _ in range(count)]

held = make(2000)
held = held[::2]  # every other one: half of each page is free
before = pools(held)
if %s:
    fillers = fill_holes()
print(len(before & pools(make(200))))
"""


def pools_shared(filled: bool) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT % filled], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_new_objects_do_not_go_between_old_ones_once_the_holes_are_filled() -> None:
    assert pools_shared(filled=False) > 20
    # The list of fillers and its like may still take a place or two.
    assert pools_shared(filled=True) <= 3
