"""A configuration file → a chain. Reading finds every mistake; making needs the process, and cannot fail.

The order of the file is the order of the steps, with three rules that spare users the usual traps: the cluster's own
names come before the first `cache` or `forward` unless placed by hand; among several `forward` the longest zone wins,
whatever their order; guards and logs see every packet wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilotage.dns.chain import Chain, Gate, Step, Tap, link, nobody
from pilotage.dns.chain.cache import Cache
from pilotage.dns.chain.clients import ClientSet, parse_network
from pilotage.dns.chain.cluster import Cluster
from pilotage.dns.chain.environment import Environment
from pilotage.dns.chain.forward import Forward
from pilotage.dns.chain.log import Log
from pilotage.dns.chain.registry import STEPS, Factory
from pilotage.dns.chain.search import Search
from pilotage.dns.chain.view import View
from pilotage.dns.core.name import from_text
from pilotage.dns.core.ttl import TtlBounds
from pilotage.dns.document import Section, open_document
from pilotage.kit.errors import UsageError

STEPS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A file without mistakes."""

    factories: tuple[Factory, ...] = ()
    ttl: TtlBounds | None = None
    """None: the fixed TTL of the command line."""
    needs_pods: bool = False
    """Whether views ask for clients' namespaces."""
    needs_records: bool = False
    """Whether DNSRecord objects are answered."""


def read_plan(text: str, path: str) -> Plan:
    """Raises `UsageError` with `FILE:LINE: …` for every mistake found."""
    top = open_document(text, path)
    factories, names = _read_steps(top, "chain")
    if not factories and not top.problems.found:
        top.problem("chain: at least one step")
    bounds = top.section("ttl")
    ttl = _read_ttl(bounds) if bounds is not None else None
    top.end()
    top.problems.check()
    return Plan(factories=factories, ttl=ttl, needs_pods="view/namespaces" in names, needs_records="records" in names)


def _read_ttl(section: Section) -> TtlBounds:
    least, most = section.integer("min_s", 1, most=3600), section.integer("max_s", 30, most=3600)
    negative = section.integer("negative_s", min(least, 5), most=3600)
    section.end()
    if least > most:
        section.problem("min_s is larger than max_s")
        least = most
    return TtlBounds(least=least, most=most, negative=negative)


def _read_steps(section: Section, key: str, place: str = "") -> tuple[tuple[Factory, ...], set[str]]:
    factories: list[Factory] = []
    names: set[str] = set()
    seen: dict[str, int] = {}
    for item in section.sections(key)[:STEPS_MAX]:
        entries = item.entries()
        if len(entries) != 1:
            item.problem("each item is one step: `- NAME: {options}`")
            continue
        ((name, options),) = entries
        seen[name] = seen.get(name, 0) + 1
        names.add(name)
        if name == "view":
            factory, inner = _read_view(options, f"{place}view{seen[name]}/")
            names |= inner
        elif name in STEPS:
            options.what = name if seen[name] == 1 and not place else f"{place}{name}{seen[name]}"
            factory = STEPS[name](options)
        else:
            options.problem(f"there is no such step; known: {', '.join(sorted((*STEPS, 'view')))}")
            continue
        factories.append(factory)
    return tuple(factories), names


def _read_view(section: Section, place: str) -> tuple[Factory, set[str]]:
    clients = ClientSet(section.convert_all("clients", parse_network))
    namespaces = frozenset(section.texts("namespaces"))
    zones = section.convert_all("names", from_text)
    factories, names = _read_steps(section, "chain", place)
    if not clients and not namespaces:
        section.problem("clients or namespaces: at least one, or the view is for nobody")
    if names & {"acl", "ratelimit", "log", "records", "search"}:
        section.problem("acl, ratelimit, log, records and search stand outside of views")
    section.end()

    def make(environment: Environment) -> View:
        steps = arrange([step for step in (f(environment) for f in factories) if isinstance(step, Step)], None)
        return View(steps, clients=clients, namespaces=namespaces, names=zones, askers=environment.askers)

    return make, names | ({"view/namespaces"} if namespaces else set())


def make_chain(plan: Plan, environment: Environment) -> Chain:
    """The chain of a plan, ready to serve."""
    made = [factory(environment) for factory in plan.factories]
    guards = tuple(part for part in made if not isinstance(part, Step))
    taps: tuple[Tap, ...] = tuple(part for part in made if isinstance(part, Log))
    steps = arrange([part for part in made if isinstance(part, Step)], environment)
    return chain_of(steps, Gate(guards, taps) if guards or taps else None)


def chain_of(steps: list[Step], gate: Gate | None = None) -> Chain:
    """Join steps that are in order."""
    every = [inner for step in steps for inner in ((step, *step.steps) if isinstance(step, View) else (step,))]
    return Chain(
        handler=link(steps, nobody),
        steps=tuple(every),
        claiming=tuple(step for step in steps if type(step).claims is not Step.claims),
        gate=gate,
        recursive=any(isinstance(step, Forward) and step.upstreams for step in every),
        depends_on_cluster=any(isinstance(step, Search) for step in every),
    )


def arrange(steps: list[Step], environment: Environment | None) -> list[Step]:
    """Put the cluster's names in their place (not inside a view), and stub domains before the servers for all."""
    if environment is not None and not any(isinstance(step, Cluster) for step in steps):
        index = next((i for i, s in enumerate(steps) if isinstance(s, Cache | Forward)), len(steps))
        steps.insert(index, Cluster(environment))
    places = [i for i, step in enumerate(steps) if isinstance(step, Forward)]
    forwards = sorted((steps[i] for i in places), key=_longest, reverse=True)
    for index, forward in zip(places, forwards, strict=True):
        steps[index] = forward
    return steps


def _longest(step: Step) -> int:
    assert isinstance(step, Forward)
    return max((len(zone) for zone in step.options.zones), default=0)


def check_file(path: str, read: Callable[[str], str]) -> Plan:
    """Read and check one file. Raises `UsageError`."""
    try:
        return read_plan(read(path), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
