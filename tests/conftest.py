"""What programs under test leave in the directory for temporary files goes with the run.

Some clients write certificates and keys there and forget them. pytest's own directories stay where they were: one looks
into them after a failure.
"""

import os
import shutil
import tempfile

import pytest

_KEY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    config.stash[_KEY] = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="pilotage-tests-")
    tempfile.tempdir = None  # asks the environment again


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_KEY], ignore_errors=True)
