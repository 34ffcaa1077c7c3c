"""The project's pages are true: links lead somewhere, drawings match their tables, commands shown exist."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from pilotage.up import ClusterConfig, load_config

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
COMMANDS = set(re.findall(r"^\| `pilotage ([a-z]+)", (ROOT / "docs/commands.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_shown_exist(page: Path) -> None:
    shown = set(re.findall(r"(?:^|[\s`(/])pilotage ([a-z]+)(?=[\s`|])", page.read_text(), re.MULTILINE))
    prose = {"commands", "is", "speaks"}  # words that follow the name in a sentence
    assert shown - COMMANDS - prose == set()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
def test_make_targets_shown_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_pages_drawn_from_tables_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/draw-docs"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_configurations_shown_are_accepted(block: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(block)
    load_config(path)


def test_every_key_of_a_configuration_is_shown() -> None:
    shown = set(re.findall(r"([A-Za-z0-9]+):", "".join(BLOCKS)))
    keys = {name for kind in structs(ClusterConfig) for name in kind.__struct_encode_fields__}
    assert keys - shown == set()


def structs(kind: type) -> set[type[msgspec.Struct]]:
    """`kind`, and the sections below it."""
    found: set[type[msgspec.Struct]] = set()
    waiting = [kind]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            found.add(one)
            waiting += [field.type for field in msgspec.structs.fields(one)]
        else:
            waiting += get_args(one)
    return found


def test_the_code_map_names_every_package() -> None:
    packages = {path.parent.name for path in (ROOT / "src/pilotage").glob("*/__init__.py")}
    mapped = set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    assert packages == mapped


def test_every_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    [runtime] = re.findall(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    reasons = (ROOT / "docs/adr/0002-dependencies.md").read_text().lower()
    names = re.findall(r'"([A-Za-z0-9-]+)', runtime)
    assert [name for name in names if name.lower() not in reasons] == []
