"""Reads `--config` files: YAML → ClusterConfig, every complaint as file:line.

Apart from `core.config`, which says what may be written, because it reads files. Called by the command line. The YAML
node tree is kept beside the values so that a complaint about a value can name the line it was written on.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from pilotage.kit import UsageError
from pilotage.up.core.config import ClusterConfig, problem

_CONFIG_BYTES_MAX = 1024 * 1024  # a config is written by hand; more is a wrong file
_AT_PATH = re.compile(r" - at `(?:key in )?(?P<path>[^`]*)`$")
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<field>[^`]*)`")
# A key with dots in it stands in brackets.
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]|\[(?P<name>[^\]]+)\]")


def load_config(path: Path) -> ClusterConfig:
    """The cluster a file describes; UsageError as "file:line: what is wrong"."""
    import yaml  # here: only a start with --config pays for it

    try:
        text = path.read_bytes()[: _CONFIG_BYTES_MAX + 1].decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot read config: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text") from error
    if len(text) > _CONFIG_BYTES_MAX:
        raise UsageError(f"{path}: larger than {_CONFIG_BYTES_MAX} bytes, so not a cluster config")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}:1: not YAML: {str(error).splitlines()[0]}") from error
    if document is None:
        return ClusterConfig()
    try:
        config = msgspec.convert(document, ClusterConfig)
    except msgspec.ValidationError as error:
        message = str(error)
        where = "$"
        if found := _AT_PATH.search(message):
            where, message = found["path"], message[: found.start()]
        key = _UNKNOWN_FIELD.search(message)
        raise UsageError(f"{path}:{_line(tree, where, key['field'] if key else '')}: {_plain(message)}") from error
    if (wrong := problem(config)) is not None:
        where, message = wrong
        raise UsageError(f"{path}:{_line(tree, where, '')}: {message}")
    return config


def check_config(config: ClusterConfig) -> ClusterConfig:
    """A config that came from flags, if it can be built; UsageError else."""
    if (wrong := problem(config)) is not None:
        raise UsageError(wrong[1])
    return config


def _plain(message: str) -> str:
    """msgspec speaks of objects and arrays, which a writer of YAML calls something else."""
    return message.replace("Object contains unknown field", "unknown key").replace("`object`", "`mapping`")


def _line(tree: Any, path: str, field: str) -> int:
    """The line of the value at `path`, or of key `field` in the mapping there; as near as the path can be followed."""
    node, line = tree, tree.start_mark.line + 1
    for step in _STEP.finditer(path):
        found = _child(node, step["key"] or step["name"], step["index"])
        if found is None:
            break
        node, line = found[1], found[0].start_mark.line + 1
    if field and (found := _child(node, field, None)) is not None:
        line = found[0].start_mark.line + 1
    return int(line)


def _child(node: Any, key: str | None, index: str | None) -> tuple[Any, Any] | None:
    """(node that marks the place, node of the value) of one step into a mapping or list; None: no such step."""
    if key is not None and getattr(node, "id", "") == "mapping":
        return next(((name, value) for name, value in node.value if name.value == key), None)
    if index is not None and index.isdigit() and getattr(node, "id", "") == "sequence" and int(index) < len(node.value):
        return node.value[int(index)], node.value[int(index)]
    return None
