"""The functions Kubernetes adds to CEL: lists, sets, patterns, URLs, addresses, quantities, the authorizer.

Stands apart from the runtime because these are plain Python functions and a table. The runtime knows no types but its
own, so a URL, an address or a quantity is a map with a tag, which nothing but these functions makes.
Source: https://kubernetes.io/docs/reference/using-api/cel/#cel-community-libraries
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from pilotage.api import quantity
from pilotage.apiserver.cel.optionals import OURS
from pilotage.apiserver.cel.pattern import pattern

Opaque = dict[str, Any]
# (group, resource, subresource, namespace, name, verb) or ("path", verb) → why not, None when allowed
Asker = Callable[[Opaque, str], str | None]

AUTHORIZER: Opaque = {"is": "authorizer"}
MATCHES_MAX = 10_000
_asker: ContextVar[Asker | None] = ContextVar("asker", default=None)


@contextmanager
def asking(asker: Asker) -> Iterator[None]:
    """Let `authorizer` in expressions evaluated inside ask this."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def declarations() -> list[Any]:
    """Every function, as the runtime wants them declared."""
    from cel_expr_python import cel

    kinds = cel.Type
    types = {
        "dyn": kinds.DYN,
        "bool": kinds.BOOL,
        "int": kinds.INT,
        "double": kinds.DOUBLE,
        "string": kinds.STRING,
        "list": kinds.List(kinds.DYN),
        "strings": kinds.List(kinds.STRING),
        "map": kinds.Map(kinds.STRING, kinds.DYN),
    }
    by_name: dict[str, list[Any]] = {}
    for index, (name, signature, function) in enumerate(_FUNCTIONS):
        receiver, _, rest = signature.rpartition(".")
        parameters, _, result = rest.partition(":")
        names = [*([receiver] if receiver else []), *(item for item in parameters.split(",") if item)]
        overload = cel.Overload(
            f"{OURS}{index}", types[result], [types[item] for item in names], bool(receiver), function
        )
        by_name.setdefault(name, []).append(overload)
    return [cel.FunctionDecl(name, overloads) for name, overloads in by_name.items()]


# Lists and sets


def _is_sorted(items: list[Any]) -> bool:
    return all(not later < earlier for earlier, later in pairwise(items))


def _extreme(choose: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    def find(items: list[Any]) -> Any:
        if not items:
            raise ValueError("min and max need a list that is not empty")
        return choose(items)

    return find


def _index(items: list[Any], item: Any) -> int:
    return next((at for at, each in enumerate(items) if each == item), -1)


def _last_index(items: list[Any], item: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if items[at] == item), -1)


def _within(items: list[Any], others: list[Any]) -> bool:
    return all(other in items for other in others)


# Patterns


def _find(text: str, expression: str) -> str:
    found = pattern(expression).search(text)
    return found.group(0) if found else ""


def _find_all(text: str, expression: str, limit: int = -1) -> list[str]:
    found: list[str] = []
    for match in pattern(expression).finditer(text):
        if len(found) == (MATCHES_MAX if limit < 0 else min(limit, MATCHES_MAX)):
            break
        found.append(match.group(0))
    return found


# URLs


def _url(text: str) -> Opaque:
    parts = urlsplit(text)
    if not (parts.scheme and (parts.netloc or parts.path.startswith("/"))) and not text.startswith("/"):
        raise ValueError(f"URL parse error during conversion from string: {text[:80]!r}")
    port = parts.port  # raises ValueError when it is no number
    return {
        "is": "url",
        "scheme": parts.scheme,
        "host": parts.netloc.rpartition("@")[2],
        "hostname": parts.hostname or "",
        "port": "" if port is None else str(port),
        "path": parts.path,
        "query": parts.query,
    }


def _query(url: Opaque) -> dict[str, list[str]]:
    from urllib.parse import parse_qs

    return parse_qs(_tagged(url, "url")["query"], keep_blank_values=True)


# Addresses


def _ip(text: str) -> Opaque:
    return {"is": "ip", "text": str(_address(text))}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text or (text.lower().startswith("::ffff:") and "." in text):
        raise ValueError(f"IP Address {text[:80]!r} parse error during conversion from string")
    return ipaddress.ip_address(text)


def _of(value: Opaque) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(_tagged(value, "ip")["text"])


def _cidr(text: str) -> Opaque:
    if "/" not in text:
        raise ValueError(f"network address parse error during conversion from string: {text[:80]!r}")
    return {"is": "cidr", "text": str(ipaddress.ip_interface(text))}


def _network(value: Opaque) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_interface(_tagged(value, "cidr")["text"]).network


def _contains_address(network: Opaque, address: str | Opaque) -> bool:
    found = _address(address) if isinstance(address, str) else _of(address)
    return found in _network(network)


def _contains_network(network: Opaque, other: str | Opaque) -> bool:
    outer, inner = _network(network), _network(_cidr(other) if isinstance(other, str) else other)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _global_unicast(value: Opaque) -> bool:
    address = _of(value)
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)


# Quantities


def _quantity(text: str) -> Opaque:
    quantity.parse(text)
    return {"is": "quantity", "text": text}


def _amount(value: Any) -> Any:
    return quantity.parse(_tagged(value, "quantity")["text"]) if isinstance(value, dict) else quantity.parse(str(value))


def _calculated(value: Any) -> Opaque:
    return {"is": "quantity", "text": quantity.render(value)}


def _sign(value: Any) -> int:
    return int(value > 0) - int(value < 0)


def _whole(value: Opaque) -> int:
    amount = _amount(value)
    if amount != int(amount):
        raise ValueError("cannot convert value to integer")
    return int(amount)


# The authorizer: a question that grows until `check` asks it


def _narrowed(**fixed: str) -> Callable[..., Opaque]:
    """A step that adds its argument to the question under the name given."""
    ((field, kind),) = fixed.items()

    def step(question: Opaque, value: str) -> Opaque:
        return {**question, "is": kind or question["is"], field: value}

    return step


def _check(question: Opaque, verb: str) -> Opaque:
    asker = _asker.get()
    if asker is None:
        raise ValueError("there is no authorizer here")
    reason = asker(question, verb)
    return {"is": "decision", "allowed": reason is None, "reason": reason or ""}


def _tagged(value: Any, tag: str) -> Opaque:
    if not isinstance(value, dict) or value.get("is") != tag:
        raise ValueError(f"no such overload: the value is not a {tag}")
    return value


def _succeeds(convert: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            convert(text)
        except ValueError:
            return False
        return True

    return check


# name, "receiver.parameters:result", function
_FUNCTIONS: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("isSorted", "list.:bool", _is_sorted),
    ("sum", "list.:dyn", sum),
    ("min", "list.:dyn", _extreme(min)),
    ("max", "list.:dyn", _extreme(max)),
    ("indexOf", "list.dyn:int", _index),
    ("lastIndexOf", "list.dyn:int", _last_index),
    ("sets.contains", "list,list:bool", _within),
    ("sets.equivalent", "list,list:bool", lambda a, b: _within(a, b) and _within(b, a)),
    ("sets.intersects", "list,list:bool", lambda a, b: any(item in b for item in a)),
    ("find", "string.string:string", _find),
    ("findAll", "string.string:strings", _find_all),
    ("findAll", "string.string,int:strings", _find_all),
    ("url", "string:map", _url),
    ("isURL", "string:bool", _succeeds(_url)),
    ("getScheme", "map.:string", lambda url: _tagged(url, "url")["scheme"]),
    ("getHost", "map.:string", lambda url: _tagged(url, "url")["host"]),
    ("getHostname", "map.:string", lambda url: _tagged(url, "url")["hostname"]),
    ("getPort", "map.:string", lambda url: _tagged(url, "url")["port"]),
    ("getEscapedPath", "map.:string", lambda url: _tagged(url, "url")["path"]),
    ("getQuery", "map.:map", _query),
    ("ip", "string:map", _ip),
    ("ip", "map.:map", lambda cidr: _ip(_tagged(cidr, "cidr")["text"].partition("/")[0])),
    ("isIP", "string:bool", _succeeds(_ip)),
    ("ip.isCanonical", "string:bool", lambda text: str(_address(text)) == text),
    ("family", "map.:int", lambda ip: _of(ip).version),
    ("isUnspecified", "map.:bool", lambda ip: _of(ip).is_unspecified),
    ("isLoopback", "map.:bool", lambda ip: _of(ip).is_loopback),
    ("isLinkLocalMulticast", "map.:bool", lambda ip: _of(ip) in ipaddress.ip_network(
        "224.0.0.0/24" if _of(ip).version == 4 else "ff02::/16")),
    ("isLinkLocalUnicast", "map.:bool", lambda ip: _of(ip).is_link_local),
    ("isGlobalUnicast", "map.:bool", _global_unicast),
    ("cidr", "string:map", _cidr),
    ("isCIDR", "string:bool", _succeeds(_cidr)),
    ("containsIP", "map.string:bool", _contains_address),
    ("containsIP", "map.map:bool", _contains_address),
    ("containsCIDR", "map.string:bool", _contains_network),
    ("containsCIDR", "map.map:bool", _contains_network),
    ("masked", "map.:map", lambda cidr: _cidr(str(_network(cidr)))),
    ("prefixLength", "map.:int", lambda cidr: _network(cidr).prefixlen),
    ("quantity", "string:map", _quantity),
    ("isQuantity", "string:bool", _succeeds(_quantity)),
    ("isInteger", "map.:bool", lambda value: _amount(value) == int(_amount(value))),
    ("asInteger", "map.:int", _whole),
    ("asApproximateFloat", "map.:double", lambda value: float(_amount(value))),
    ("sign", "map.:int", lambda value: _sign(_amount(value))),
    ("add", "map.map:map", lambda a, b: _calculated(_amount(a) + _amount(b))),
    ("add", "map.int:map", lambda a, b: _calculated(_amount(a) + b)),
    ("sub", "map.map:map", lambda a, b: _calculated(_amount(a) - _amount(b))),
    ("sub", "map.int:map", lambda a, b: _calculated(_amount(a) - b)),
    ("isLessThan", "map.map:bool", lambda a, b: _amount(a) < _amount(b)),
    ("isGreaterThan", "map.map:bool", lambda a, b: _amount(a) > _amount(b)),
    ("compareTo", "map.map:int", lambda a, b: _sign(_amount(a) - _amount(b))),
    ("jsonpatch.escapeKey", "string:string", lambda key: key.replace("~", "~0").replace("/", "~1")),
    ("path", "map.string:map", _narrowed(path="path")),
    ("group", "map.string:map", _narrowed(group="group")),
    ("resource", "map.string:map", _narrowed(resource="resource")),
    ("subresource", "map.string:map", _narrowed(subresource="")),
    ("namespace", "map.string:map", _narrowed(namespace="")),
    ("name", "map.string:map", _narrowed(name="")),
    ("serviceAccount", "map.string,string:map", lambda question, namespace, name: {
        **question, "user": f"system:serviceaccount:{namespace}:{name}"}),
    ("check", "map.string:map", _check),
    ("allowed", "map.:bool", lambda decision: _tagged(decision, "decision")["allowed"]),
    ("reason", "map.:string", lambda decision: _tagged(decision, "decision")["reason"]),
    ("errored", "map.:bool", lambda decision: not _tagged(decision, "decision")),
)  # fmt: skip
