"""Rules that every package keeps: a docstring in five parts, a surface that is stated, imports without side effects."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src/pilotage"
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
PARTS = ("Purpose:", "Inputs → outputs:", "Invariants:", "Reading order:", "Specifications:")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_explains_itself_in_five_parts(name: str) -> None:
    docstring = importlib.import_module(f"pilotage.{name}").__doc__ or ""
    assert [part for part in PARTS if part not in docstring] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_states_its_surface(name: str) -> None:
    module = importlib.import_module(f"pilotage.{name}")
    surface = getattr(module, "__all__", [])
    assert len(surface) <= 30
    assert [item for item in surface if not hasattr(module, item)] == []


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_importing_everything_starts_nothing() -> None:
    """The zygote imports every component before it forks; a thread or a loaded grpc would not survive that."""
    program = (
        "import importlib, sys, threading\n"
        f"for name in {PACKAGES!r}: importlib.import_module('pilotage.' + name)\n"
        "print(threading.active_count(), 'grpc' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
