"""What scripts rely on: commands, exit codes, one line of error."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilotage.cli.__main__ import run

CLUSTER = ("up", "down", "ls", "status", "kubeconfig", "shell", "logs", "image", "demo")
COMPONENTS = (
    "apiserver",
    "controllers",
    "scheduler",
    "agent",
    "proxy",
    "dns",
    "external-dns",
    "gateway",
    "loadbalancer",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", CLUSTER + COMPONENTS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    _, found, example = " ".join(capsys.readouterr().out.split()).partition("Example: ")
    assert found
    assert f"pilotage {command}" in example


@pytest.mark.parametrize(
    "arguments",
    [
        ["image", "load"],
        ["image", "ls"],
        ["image", "rm"],
        ["apiserver", "backup"],
        ["apiserver", "restore"],
        ["dns", "check"],
        ["proxy", "check"],
        ["dns", "import-corefile"],
        ["dns", "ndots"],
    ],
)
def test_every_command_of_a_group_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--help"]) == 0
    assert f"Example: pilotage {' '.join(arguments)}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        pytest.param(["nope"], 2, "No such command 'nope'", id="an unknown command"),
        pytest.param(["up", "--nodes", "many"], 2, "Invalid value for '--nodes'", id="a value of the wrong type"),
        pytest.param(["up", "--name", "Bad"], 2, "name 'Bad' must be", id="a name that cannot be"),
        pytest.param(["up", "--nodes", "0"], 2, "between 1 and 100", id="a number that cannot be"),
        pytest.param(["up", "--config", "/nonexistent"], 2, "cannot read config", id="a config that is not there"),
        pytest.param(["ls", "-o", "yaml"], 2, "neither text nor json", id="an unknown output"),
        pytest.param(["kubeconfig"], 1, "no cluster named pilotage is running", id="no such cluster"),
        pytest.param(["down"], 1, "no cluster named pilotage", id="nothing to stop"),
        pytest.param(["down", "--name", ".."], 2, "name '..' must be", id="a name that is another directory"),
        pytest.param(["down", "--name", ""], 2, "name '' must be", id="a name that is the directory of all"),
        pytest.param(["logs", "dns-n1"], 1, "there is none at all", id="no such log"),
        pytest.param(["apiserver", "--listen", "here"], 2, "not ADDRESS:PORT", id="an address that is none"),
        pytest.param(
            ["apiserver", "--service-cidr", "10.96.0.0/16,10.97.0.0/16"], 2, "one of each family", id="a family twice"
        ),
        pytest.param(["apiserver", "--node-ports", "40000-30000"], 2, "not FIRST-LAST", id="ports backwards"),
        pytest.param(["apiserver", "backup", "/tmp/x", "--data-dir", "/nonexistent"], 1, "no store", id="no store"),
        pytest.param(["apiserver", "restore", "/nonexistent"], 1, "no backup", id="no backup"),
        pytest.param(
            ["apiserver", "backup", "/tmp/x", "--storage", "etcd:http://a:1"], 2, "etcdctl", id="a copy of etcd"
        ),
        pytest.param(
            ["proxy", "--node", "n", "--kubeconfig", "/nonexistent"], 2, "cannot read kubeconfig", id="no credentials"
        ),
        pytest.param(["loadbalancer", "--kubeconfig", "/x"], 2, "give --pool", id="nothing to do"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pilotage: ")
    assert complaint in captured.err
    assert captured.err.count("\n") == 1


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_layout: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("pilotage.up.bring_down", interrupt)
    assert run(["down"]) == 130
    assert capsys.readouterr().err.strip() == "pilotage: interrupted"


def test_programs_of_administrators_are_found_by_ordinary_users() -> None:
    look = "import os, sys; from pilotage.cli.__main__ import main; sys.argv = ['pilotage', 'ls']\n"
    look += "try: main()\nfinally: print(os.environ['PATH'])"
    environment = {**os.environ, "PATH": "/usr/bin:/sbin"}
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "/usr/bin:/sbin:/usr/local/sbin:/usr/sbin"


def test_an_empty_list_is_still_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ls", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_help_is_quick_and_imports_no_component() -> None:
    program = (
        "import sys; from pilotage.cli.__main__ import run; run(['--help']); "
        "sys.stderr.write(' '.join(m for m in ('aiohttp', 'rich', 'asyncio', 'msgspec', 'yaml') if m in sys.modules))"
    )
    best = 10.0
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        best = min(best, time.monotonic() - started)
    assert done.stderr == ""
    assert best < 1.0, f"{best:.2f} s"  # 0.12 s on an idle machine
