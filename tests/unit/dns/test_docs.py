"""The examples of the manual are accepted, and its table names every step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pilotage.dns.api import definition
from pilotage.dns.chain.build import read_plan
from pilotage.dns.chain.registry import STEPS

MANUAL = (Path(__file__).parents[3] / "docs" / "dns.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)


@pytest.mark.parametrize("text", [text for text in EXAMPLES if "chain:" in text])
def test_example_files_are_accepted(text: str) -> None:
    assert read_plan(text.replace("/etc/resolv.conf", "192.0.2.53"), "example").factories


def test_the_example_object_has_the_fields_of_its_definition() -> None:
    (document,) = (yaml.safe_load(text) for text in EXAMPLES if "kind: DNSRecord" in text)
    made = definition()["spec"]
    (version,) = made["versions"]
    assert document["apiVersion"] == f"{made['group']}/{version['name']}"
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(document["spec"]) <= set(schema["properties"])
    item = schema["properties"]["records"]["items"]["properties"]
    assert all(set(record) <= set(item) for record in document["spec"]["records"])


def test_every_step_stands_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", MANUAL, flags=re.MULTILINE)) == {*STEPS, "view"}
