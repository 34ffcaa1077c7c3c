"""A Corefile (CoreDNS's configuration) → our configuration file and flags, and what has no counterpart.

Every directive is either translated, or needless here and said so, or reported with its line. One file for all plugins,
because each translation is a few lines and the reader compares them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

ROOT = "."


@dataclass(frozen=True, slots=True)
class Directive:
    """One line, with the lines of its block."""

    line: int
    words: tuple[str, ...]
    block: tuple[Directive, ...] = ()

    @property
    def name(self) -> str:
        return self.words[0]

    def option(self, name: str) -> tuple[str, ...] | None:
        """The arguments of the option in the block; None when it is not there."""
        return next((d.words[1:] for d in self.block if d.name == name), None)


@dataclass(slots=True)
class Import:
    """What a Corefile became."""

    flags: list[str] = field(default_factory=list)
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Said for information: "LINE: PLUGIN: …"."""
    missing: list[str] = field(default_factory=list)
    """What cannot be expressed, in the same form."""

    def note(self, directive: Directive, text: str) -> None:
        self.notes.append(f"{directive.line}: {directive.name}: {text}")

    def miss(self, directive: Directive, text: str) -> None:
        self.missing.append(f"{directive.line}: {directive.name}: {text}")

    def document(self) -> str:
        """The configuration file."""
        chain = [{name: options or None} for name, options in sorted(self.steps, key=lambda s: ORDER.index(s[0]))]
        text = yaml.safe_dump({"chain": chain}, sort_keys=False, default_flow_style=False, width=110)
        return text.replace(": null\n", ":\n")


ORDER = ("acl", "log", "search", "rewrite", "hosts", "local", "template", "cluster", "cache", "forward")
"""Where CoreDNS runs them, whatever their order in the file."""


def parse(text: str) -> tuple[Directive, ...]:
    """Server blocks as directives whose words are their zones. Raises `ValueError` with the line."""
    tokens = _tokens(text)
    directives, position = _parse_block(tokens, 0, depth=0)
    if position != len(tokens):
        raise ValueError(f"{tokens[position][0]}: a closing brace too many")
    return directives


def _tokens(text: str) -> list[tuple[int, str]]:
    """Words, braces and line ends ("\\n"), with their lines."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        position = 0
        while position < len(line):
            char = line[position]
            if char.isspace():
                position += 1
            elif char == "#":
                break
            elif char == '"':
                end = line.find('"', position + 1)
                if end < 0:
                    raise ValueError(f"{number}: a quote that does not end")
                found.append((number, line[position + 1 : end]))
                position = end + 1
            else:
                end = position
                while end < len(line) and not line[end].isspace():
                    end += 1
                found.append((number, line[position:end]))
                position = end
        found.append((number, "\n"))
    return found


def _parse_block(tokens: list[tuple[int, str]], position: int, depth: int) -> tuple[tuple[Directive, ...], int]:
    directives: list[Directive] = []
    words: list[str] = []
    line = 0
    while position < len(tokens):
        number, word = tokens[position]
        position += 1
        if word == "\n":
            if words and not (depth == 0 and words[-1].endswith(",")):
                directives.append(Directive(line, tuple(words)))
                words = []
        elif word == "{":
            if not words:
                raise ValueError(f"{number}: a block without a name")
            block, position = _parse_block(tokens, position, depth + 1)
            if position > len(tokens) or tokens[position - 1][1] != "}":
                raise ValueError(f"{number}: a block that does not end")
            directives.append(Directive(line, tuple(words), block))
            words = []
        elif word == "}":
            if depth == 0:
                raise ValueError(f"{number}: a closing brace too many")
            if words:
                directives.append(Directive(line, tuple(words)))
            return tuple(directives), position
        else:
            line = line if words else number
            words.append(word)
    if depth:
        return tuple(directives), position
    if words:
        directives.append(Directive(line, tuple(words)))
    return tuple(directives), position


def convert(text: str) -> Import:
    """The whole file. Raises `ValueError` with the line when it is no Corefile."""
    result = Import()
    for block in parse(text):
        zones = [_zone(word.rstrip(",")) for word in block.words]
        if block.name.startswith("("):
            result.miss(block, "snippets: write their lines where they are imported")
            continue
        for directive in block.block:
            if directive.name in IGNORED:
                result.note(directive, IGNORED[directive.name])
            elif directive.name in PLUGINS:
                PLUGINS[directive.name](directive, [zone for zone in zones if zone], result)
            else:
                result.miss(directive, "no counterpart")
    return result


def _zone(word: str) -> str:
    """`tls://example.org:853` → `example.org`; a reverse range → its zone name is left to the reader."""
    _, _, rest = word.rpartition("://")
    zone, _, port = rest.rpartition(":")
    zone = zone if zone and port.isdecimal() else rest
    return zone if zone == ROOT else zone.removesuffix(".")


def _zones(zones: list[str]) -> dict[str, Any]:
    """No entry stands for every name."""
    return {} if ROOT in zones or not zones else {"zones": zones}


def _seconds(text: str) -> int | None:
    """`30`, `5s`, `2m`, `1h`; None for anything else."""
    for suffix, factor in (("ms", 0), ("s", 1), ("m", 60), ("h", 3600)):
        if text.endswith(suffix) and text.removesuffix(suffix).isdecimal():
            return int(text.removesuffix(suffix)) * factor
    return int(text) if text.isdecimal() else None


def _kubernetes(directive: Directive, zones: list[str], result: Import) -> None:
    names = [word.removesuffix(".") for word in directive.words[1:]]
    forward = [name for name in names if not name.endswith(".arpa") and "/" not in name]
    if forward and forward[0] != "cluster.local":
        result.flags += ["--zone", forward[0]]
    if len(forward) > 1:
        result.miss(directive, f"one cluster domain only; left out: {', '.join(forward[1:])}")
    for name in names:
        if "/" in name:
            result.flags += ["--reverse-cidr", name]
    for option in directive.block:
        match option.name:
            case "pods" if option.words[1:] in (("disabled",), ("insecure",), ("verified",)):
                result.flags += ["--pods", option.words[1]]
            case "ttl" if len(option.words) == 2 and option.words[1].isdecimal():
                result.flags += ["--ttl", option.words[1]]
            case "fallthrough":
                result.note(option, "reverse names outside of --reverse-cidr always go on")
            case "endpoint_pod_names" | "namespaces" | "labels" | "namespace_labels" | "noendpoints" | "ignore":
                result.miss(option, "no counterpart: every Service of the cluster has its names")
            case "kubeconfig" | "endpoint" | "tls":
                result.note(option, "say it with --kubeconfig")
            case _:
                result.miss(option, "no counterpart")


def _forward(directive: Directive, zones: list[str], result: Import) -> None:
    if len(directive.words) < 3:
        result.miss(directive, "FROM TO… expected")
        return
    source = _zone(directive.words[1])
    options: dict[str, Any] = _zones(zones if source == ROOT else [source])
    servers = [word for word in directive.words[2:] if not word.startswith("grpc://")]
    if len(servers) < len(directive.words) - 2:
        result.miss(directive, "DNS over gRPC")
    if not servers:
        return
    options["to"] = servers
    for option in directive.block:
        value = option.words[1] if len(option.words) > 1 else ""
        match option.name:
            case "policy" if value in ("random", "round_robin", "sequential"):
                options["policy"] = value
            case "except":
                options["except"] = list(option.words[1:])
            case "tls_servername":
                options["tls_server_name"] = value
            case "tls" if len(option.words) in (1, 2):
                if value:
                    options["tls_ca"] = value
            case "force_tcp":
                options["force_tcp"] = True
            case "max_concurrent" if value.isdecimal():
                options["concurrent_max"] = int(value)
            case "health_check":
                seconds = _seconds(value)
                if seconds:
                    options["health_interval_s"] = seconds
                if "domain" in option.words:
                    options["health_name"] = option.words[option.words.index("domain") + 1]
            case "prefer_udp" | "expire" | "max_fails" | "next" | "failover":
                result.note(option, "always so here, or not needed")
            case _:
                result.miss(option, "no counterpart")
    result.steps.append(("forward", options))


def _cache(directive: Directive, zones: list[str], result: Import) -> None:
    options: dict[str, Any] = {}
    if len(directive.words) > 1 and (ttl := _seconds(directive.words[1])) is not None:
        options |= {"ttl_max_s": ttl, "negative_ttl_max_s": ttl}
    for option in directive.block:
        words = option.words[1:]
        match option.name:
            case "success" | "denial":
                if words and words[0].isdecimal() and option.name == "success":
                    options["entries"] = max(1, int(words[0]))
                if len(words) > 1 and words[1].isdecimal():
                    options["ttl_max_s" if option.name == "success" else "negative_ttl_max_s"] = int(words[1])
                if len(words) > 2 and words[2].isdecimal() and option.name == "success":
                    options["ttl_min_s"] = int(words[2])
            case "prefetch":
                options["prefetch_hits"] = int(words[0]) if words and words[0].isdecimal() else 3
                if len(words) > 2 and words[2].removesuffix("%").isdecimal():
                    options["prefetch_percent"] = int(words[2].removesuffix("%"))
            case "serve_stale":
                options["stale_s"] = (_seconds(words[0]) if words else None) or 3600
                options["stale_immediately"] = "verify" not in words
            case "disable":
                result.note(option, "the cluster's own names are never cached here")
            case "servfail" | "keepttl":
                result.note(option, "not needed: failures are not kept")
            case _:
                result.miss(option, "no counterpart")
    if any(name == "cache" for name, _ in result.steps):
        result.note(directive, "one cache serves all zones; the first one's options are used")
        return
    result.steps.append(("cache", options))


def _hosts(directive: Directive, zones: list[str], result: Import) -> None:
    options: dict[str, Any] = {}
    words = directive.words[1:]
    if words and words[0].startswith("/"):
        options["file"] = words[0]
    elif not directive.block:
        options["file"] = "/etc/hosts"
    entries = []
    for option in directive.block:
        match option.name:
            case "ttl" if len(option.words) > 1:
                options["ttl_s"] = _seconds(option.words[1]) or 0
            case "fallthrough":
                result.note(option, "unknown names always go on")
            case "reload":
                result.note(option, "a changed file is read within two seconds")
            case "no_reverse":
                result.miss(option, "reverse names are always answered")
            case _ if _is_address(option.name):
                entries.append(" ".join(option.words))
            case _:
                result.miss(option, "no counterpart")
    if entries:
        options["entries"] = entries
    result.steps.append(("hosts", options))


def _rewrite(directive: Directive, zones: list[str], result: Import) -> None:
    words = [word for word in directive.words[1:] if word not in ("stop", "continue")]
    if words[:1] == ["name"]:
        words = words[1:]
    elif words[:1] and words[0] in ("type", "class", "edns0", "ttl", "cname", "rcode"):
        result.miss(directive, f"rewriting of {words[0]}")
        return
    kind = words[0] if words and words[0] in ("exact", "suffix", "prefix", "substring", "regex") else "exact"
    words = words[1:] if words and words[0] == kind else words
    if len(words) < 2 or (len(words) > 4 and words[2] != "answer"):
        result.miss(directive, "not understood")
        return
    if "answer" in words[2:] and "auto" not in words[2:]:
        result.note(directive, "answers are always turned back to the name asked for")
    rule = {"match": kind, "name": words[0], "to": words[1]}
    rules = next((options["rules"] for name, options in result.steps if name == "rewrite"), None)
    if rules is None:
        result.steps.append(("rewrite", {"rules": [rule]}))
    else:
        rules.append(rule)


def _template(directive: Directive, zones: list[str], result: Import) -> None:
    words = directive.words[1:]
    if not words or words[0].upper() not in ("IN", "ANY"):
        result.miss(directive, "classes other than IN")
        return
    options: dict[str, Any] = {"zones": list(words[2:]) or [zone for zone in zones if zone != ROOT] or [ROOT]}
    if len(words) > 1 and words[1].upper() != "ANY":
        options["types"] = [words[1].upper()]
    for option in directive.block:
        match option.name:
            case "match" if len(option.words) == 2:
                options["match"] = _pattern(option.words[1])
            case "rcode" if len(option.words) == 2:
                options["rcode"] = option.words[1].upper()
            case "answer" if len(option.words) == 2:
                record = option.words[1].split()
                if len(record) < 5 or ("{{ .Name }}" not in option.words[1] and "{{.Name}}" not in option.words[1]):
                    result.miss(option, "only answers at the question's own name")
                    continue
                _template_answer(option, option.words[1], options, result)
            case "fallthrough":
                result.note(option, "names that the pattern does not match always go on")
            case _:
                result.miss(option, "no counterpart")
    result.steps.append(("template", options))


def _template_answer(option: Directive, text: str, options: dict[str, Any], result: Import) -> None:
    """`{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.1`"""
    parts = text.replace("{{.", "{{ .").replace("}}", " }}").replace("{{ .Name  }}", "@").split()
    if parts[:1] == ["{{"]:
        parts = ["@", *parts[3:]]
    rest = [word for word in parts[1:] if word.upper() != "IN"]
    if rest and rest[0].isdecimal():
        options["ttl_s"] = int(rest[0])
        rest = rest[1:]
    if not rest:
        result.miss(option, "not understood")
        return
    value = " ".join(rest[1:])
    for marker in (".Group.",):
        while (start := value.find("{{ " + marker)) >= 0:
            end = value.find("}}", start)
            value = value[:start] + "{" + value[start + 3 + len(marker) : end].strip() + "}" + value[end + 2 :]
    if "{{" in value:
        result.miss(option, "only {{ .Name }} and {{ .Group.… }} can be filled in")
        return
    options.setdefault("answers", []).append({"type": rest[0].upper(), "value": value})


def _pattern(text: str) -> str:
    """Ours is matched against the whole name without its final dot."""
    body = text.removeprefix("^").removesuffix("$")
    body = body.removesuffix("[.]").removesuffix("\\.")
    return body if text.startswith("^") else ".*" + body


def _autopath(directive: Directive, zones: list[str], result: Import) -> None:
    result.note(directive, "the namespace is read from the question; no pods are watched")
    result.steps.append(("search", {}))


def _log(directive: Directive, zones: list[str], result: Import) -> None:
    options: dict[str, Any] = {}
    classes = directive.option("class")
    if classes is not None:
        known = [name for name in classes if name in ("all", "denial", "error")]
        options["classes"] = known or ["all"]
        if len(known) != len(classes):
            result.miss(directive, f"classes {', '.join(set(classes) - set(known))}")
    if any(name == "log" for name, _ in result.steps):
        return
    names = [word for word in directive.words[1:] if word != ROOT and "{" not in word]
    result.steps.append(("log", options | ({"names": names} if names else {})))


def _file(directive: Directive, zones: list[str], result: Import) -> None:
    if len(directive.words) < 2:
        result.miss(directive, "a file expected")
        return
    for zone in [_zone(word) for word in directive.words[2:]] or zones:
        result.steps.append(("local", {"zone": zone, "file": directive.words[1]}))


def _acl(directive: Directive, zones: list[str], result: Import) -> None:
    rules: list[dict[str, Any]] = []
    actions = {"allow": "allow", "block": "refuse", "drop": "drop"}
    for option in directive.block:
        if option.name not in actions or "type" in option.words:
            result.miss(option, "only allow, block and drop by address")
            continue
        clients = [word for word in option.words[1:] if word not in ("net", "*")]
        rule: dict[str, Any] = {"action": actions[option.name]}
        rules.append(rule | ({"clients": clients} if clients else {}) | _named(zones))
    result.steps.append(("acl", {"rules": rules}))


def _named(zones: list[str]) -> dict[str, Any]:
    return {"names": zones} if zones and ROOT not in zones else {}


def _prometheus(directive: Directive, zones: list[str], result: Import) -> None:
    result.flags += [
        "--health",
        _any_host(directive.words[1]) if len(directive.words) > 1 else "127.0.0.1:9153",
    ]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


IGNORED = {
    "reload": "a changed file is always taken up",
    "health": "part of --health",
    "ready": "part of --health",
    "loop": "this server is never its own upstream",
    "loadbalance": "addresses always take turns",
    "errors": "always logged",
    "bind": "say it with --listen",
    "minimal": "answers are always minimal",
    "bufsize": "always 1232 bytes",
    "any": "ANY is always answered by one record set",
    "cancel": "every upstream has a timeout",
}
PLUGINS: dict[str, Callable[[Directive, list[str], Import], None]] = {
    "kubernetes": _kubernetes,
    "forward": _forward,
    "cache": _cache,
    "hosts": _hosts,
    "rewrite": _rewrite,
    "template": _template,
    "autopath": _autopath,
    "log": _log,
    "file": _file,
    "acl": _acl,
    "prometheus": _prometheus,
}


def _any_host(text: str) -> str:
    """`:9153` is every address."""
    return f"0.0.0.0{text}" if text.startswith(":") else text  # noqa: S104 - what the Corefile means
