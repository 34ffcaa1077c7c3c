"""The manual is true: its commands are accepted, its files are read, and what it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from prometheus_client import generate_latest

from pilotage.agent import metrics as agent_metrics
from pilotage.api.codec import convert
from pilotage.cli.__main__ import run
from pilotage.cli.app import app
from pilotage.dns.api import DNSRecord, definition
from pilotage.dns.chain.build import read_plan
from pilotage.dns.chain.registry import STEPS
from pilotage.dns.core.custom import CustomRecords
from pilotage.dns.core.name import from_text
from pilotage.dns.familiar import expose
from pilotage.kit.errors import UsageError

MANUAL = (Path(__file__).parents[3] / "docs" / "dns.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", MANUAL, flags=re.DOTALL)
YAML = [text for language, text in BLOCKS if language == "yaml"]
FILES = [text.replace("/etc/resolv.conf", "192.0.2.53") for text in YAML if "chain:" in text]
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", MANUAL, flags=re.DOTALL))
SHOWN = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
NAMES = {span.removeprefix("pilotage ") for span in SPANS if re.fullmatch(r"pilotage [a-z-]+", span)}
COMMANDS = SHOWN + [span for span in SPANS if span.startswith("pilotage ") and span.split()[1:] != [span[9:]]]
TABLE = re.findall(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", MANUAL, flags=re.MULTILINE)


def words_of(line: str) -> list[str]:
    """As a shell passes them on; `[--events LOG]` is an option that may be left out, and here is not."""
    assert line.startswith("pilotage "), line
    return shlex.split(line.partition(" > ")[0].replace("[", "").replace("]", ""))[1:]


def parse(words: list[str]) -> None:
    """Through the real parser, without running anything."""
    command = typer.main.get_command(app)
    context = command.make_context("pilotage", list(words))
    while rest := [*context._protected_args, *context.args]:
        name, command, rest = command.resolve_command(context, rest)  # type: ignore[attr-defined]
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            assert not context.args
            break


def test_there_are_examples_of_every_sort() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "yaml"}
    assert len(SHOWN) >= 2
    assert len(FILES) >= 2


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_accepted(line: str) -> None:
    parse(words_of(line))


def test_commands_named_are_there() -> None:
    assert set(typer.main.get_command(app).commands) >= NAMES  # type: ignore[attr-defined]


def test_a_command_that_is_wrong_would_not_be() -> None:
    for line in (SHOWN[0].replace("--listen", "--listne"), "pilotage dns chekc dns.yaml", "pilotage dns check"):
        with pytest.raises(typer.TyperException):
            parse(words_of(line))


@pytest.mark.parametrize("name", ["dns", "external-dns"])
def test_options_named_are_there(name: str) -> None:
    server, _, publisher = MANUAL.partition("\n## External DNS\n")
    named = set(re.findall(r"`(--[\w-]+)", {"dns": server, "external-dns": publisher}[name]))
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert named <= {option for parameter in command.params for option in parameter.opts}
    assert named or name != "dns"


@pytest.mark.parametrize("text", FILES)
def test_files_pass_the_check_that_the_manual_tells_of(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dns.yaml").write_text(text)
    assert run(["dns", "check", str(tmp_path / "dns.yaml")]) == 0
    assert read_plan(text, "example").factories
    (tmp_path / "dns.yaml").write_text(text.replace("chain:", "chian:"))
    assert run(["dns", "check", str(tmp_path / "dns.yaml")]) == 2
    assert "dns.yaml:" in capsys.readouterr().err


def test_a_corefile_becomes_a_file_that_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Corefile").write_text(".:53 {\n  kubernetes cluster.local\n  forward . 192.0.2.53\n  cache 30\n}\n")
    assert run(["dns", "import-corefile", str(tmp_path / "Corefile")]) == 0
    (tmp_path / "dns.yaml").write_text(capsys.readouterr().out)
    assert run(["dns", "check", str(tmp_path / "dns.yaml")]) == 0


@pytest.mark.parametrize("span", [s for s in SPANS if re.match(rf"-? ?({'|'.join([*STEPS, 'view'])}):", s)])
def test_steps_named_in_a_sentence_are_accepted(span: str) -> None:
    read_plan(f"chain:\n  - {span.removeprefix('- ')}\n", "example")


def test_every_step_stands_in_the_table() -> None:
    assert {name for name, _ in TABLE} == {*STEPS, "view"}


@pytest.mark.parametrize(("name", "cell"), TABLE)
def test_the_table_names_every_option_and_no_other(name: str, cell: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_plan(f"chain: [{name}: {{'?': 1}}]", "example")
    (known,) = re.findall(r"'\?' is unknown(?:; known: (.*))?", str(caught.value))
    named = {re.split(r"[:\s]", span)[0] for span in re.findall(r"`([^`]+)`", cell)}
    assert named == ({option.strip() for option in known.split(",")} if known else set())


@pytest.mark.parametrize("text", [text for text in YAML if "kind: DNSRecord" in text])
def test_the_example_object_has_the_fields_of_its_definition_and_is_accepted(text: str) -> None:
    document = yaml.safe_load(text)
    made = definition()["spec"]
    (version,) = made["versions"]
    assert document["apiVersion"] == f"{made['group']}/{version['name']}"
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(document["spec"]) <= set(schema["properties"])
    item = schema["properties"]["records"]["items"]["properties"]
    assert all(set(record) <= set(item) for record in document["spec"]["records"])
    records = CustomRecords()
    records.allowed = (from_text("apps.example"),)
    held = convert(DNSRecord, document)
    records.set("shop/shop", held)
    assert records.judge(held).accepted


def test_metrics_named_are_there() -> None:
    expose()
    assert agent_metrics.ADDRESS_REST_SECONDS  # the manual names it as well
    offered = generate_latest().decode()
    named = {re.split(r"[{ ]", span)[0] for span in SPANS if re.match(r"(pilotage|coredns)_", span)}
    assert len(named) >= 3
    assert [name for name in named if f"# TYPE {name} " not in offered] == []
