"""Documents that nearly make sense: what a property-based test of the API server sends it.

Stands apart because several suites want the same mischief. A document follows the schema of its kind, so that it gets
past decoding into defaulting, admission and validation, with values picked to hurt: empty, huge, negative, of the wrong
family. One in a few is then damaged at a random place. Everything derives from one seed, which a failing test prints.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from pilotage.api.catalogue import Resource
from pilotage.api.schema import Schema, schema_of
from pilotage.api.schema_values import ENUMERATIONS

DEPTH_MAX = 12

_TEXTS = (
    "", "a", "web", "A_b", "x" * 300, "-", "a.b", "a/b", "a.b/c", "TCP", "UDP", "http", "None", "Always", "0", "80",
    "10.0.0.1", "10.96.0.9", "300.1.1.1", "fe80::1", "::", "10.0.0.0/8", "10.0.0.0/99", "IPv4", "IPv6", "FQDN",
    "In", "Exists", "NotIn", "Gt", "*", "*.example.com", "/path", "../..", "25%", "101%", "-5%", "%", "\u0000", "é🦀",
    "metadata.name", "metadata.labels['a']", "limits.cpu", "kube-system", "default", "v1", "apps/v1", "Pod", "Node",
    "Service", "ClusterIP", "LoadBalancer", "NodePort", "ExternalName", "Local", "Cluster", "requests.cpu",
    "count/pods", "*/5 * * * *", "@hourly", "61 * * * *", "rbac.authorization.k8s.io", "Role", "ClusterRole", "User",
    "Group", "ServiceAccount", "self == oldSelf", "object.spec", "((", "2020-01-01T00:00:00Z", "kubernetes.io/tls",
)  # fmt: skip
_NUMBERS = (0, 1, 2, -1, 5, 53, 80, 443, 511, 600, 30000, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**63 - 1)
_QUANTITIES = ("0", "1", "100m", "1Gi", "-1", "1e3", "0.5", "1n", "9999999999999999E", "5Ki", 3)
_TIMES = ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.123456Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z", None)
_JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1.5,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": []}},
    10**30,
)


def document(resource: Resource, seed: int) -> dict[str, Any]:
    """A body for a resource; the same one for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    made: dict[str, Any] = _value(schema_of(resource.schema), chance, 0)
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2))):
        _damage(made, chance)
    made["metadata"] = {"name": chance.choice(("fuzz",) * 8 + ("fuzz-2", "", "UPPER")), **_metadata(chance)}
    made.pop("apiVersion", None)
    made.pop("kind", None)
    return made


def _metadata(chance: random.Random) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "labels": {chance.choice(_TEXTS): chance.choice(_TEXTS)},
        "annotations": {chance.choice(_TEXTS): chance.choice(_TEXTS)},
        "finalizers": [chance.choice(_TEXTS)],
        "ownerReferences": [{"kind": "Pod", "name": "x", "apiVersion": "v1", "uid": chance.choice(_TEXTS)}],
        "generateName": chance.choice(_TEXTS),
        "managedFields": chance.choice(([], [{}], [{"manager": "m", "fieldsV1": {"f:a": {}}}], None)),
        "generation": chance.choice(_NUMBERS),
        "creationTimestamp": chance.choice(_TIMES),
    }
    return {name: extra[name] for name in extra if chance.random() < 0.1}


def _value(schema: Schema, chance: random.Random, depth: int) -> Any:
    match schema.kind:
        case "object":
            return _object(schema, chance, depth)
        case "map":
            keys = chance.sample(_TEXTS, chance.choice((0, 1, 2)))
            return {key: _item(schema, chance, depth) for key in keys}
        case "list":
            return [_item(schema, chance, depth) for _ in range(chance.choice((0, 1, 1, 2)))]
        case "string":
            return chance.choice(_TEXTS)
        case "bytes":
            return "!" if chance.random() < 0.05 else chance.choice(("", "YQ==", "/////w=="))
        case "integer":
            most = schema.integer_max or 2**63 - 1
            return chance.choice([number for number in _NUMBERS if -most - 1 <= number <= most])
        case "number":
            return chance.choice((*_NUMBERS, 0.5))
        case "boolean":
            return chance.random() < 0.5
        case "quantity":
            return chance.choice(_QUANTITIES)
        case "int-or-string":
            return chance.choice((*_NUMBERS, *_TEXTS))
        case "time":
            return chance.choice(_TIMES)
        case _:
            return _junk(chance)


def _item(schema: Schema, chance: random.Random, depth: int) -> Any:
    return _junk(chance) if schema.items is None or depth > DEPTH_MAX else _value(schema.items, chance, depth + 1)


def _object(schema: Schema, chance: random.Random, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        return {}
    values = ENUMERATIONS.get(schema.definition.removeprefix("io.k8s.api."), {})
    # Few of many: a pod's spec with everything in it fails at once for a hundred reasons and hides the rest.
    often = min(1.0, 5 / max(len(schema.properties), 1))
    made: dict[str, Any] = {}
    for name, child in schema.properties.items():
        if name in ("metadata", "apiVersion", "kind") and depth == 0:
            continue
        wanted = name in schema.required or name in ("spec", "template", "containers")
        if chance.random() < (0.95 if wanted else often):
            listed = values.get(name)
            keep = listed is not None and chance.random() < 0.8
            picked = chance.choice(listed) if keep and listed else _value(child, chance, depth + 1)
            made[name] = [picked] if child.kind == "list" and not isinstance(picked, list) else picked
    return made


def _damage(value: Any, chance: random.Random) -> None:
    """Replace something somewhere inside by junk."""
    while isinstance(value, dict | list) and value:
        key: Any = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            value[key] = _junk(chance)
            return
        value = inner


def _junk(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(_JUNK))
