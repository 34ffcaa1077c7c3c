"""What steps may use of the process they serve in. Made once by the server; outlives every configuration file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pilotage.dns.core.askers import Askers
from pilotage.dns.core.custom import CustomRecords
from pilotage.dns.core.table import Table
from pilotage.kit.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from pilotage.dns.chain.cache import Cache


@dataclass(slots=True, kw_only=True)
class Environment:
    """Constructor arguments of every step."""

    table: Table
    clock: Clock = SYSTEM_CLOCK
    askers: Askers = field(default_factory=Askers)
    """Clients' namespaces; nobody's as long as pods are not watched."""
    topology_zone: str = ""
    """The zone of the node that this process serves; set once the node is known."""
    custom: CustomRecords = field(default_factory=CustomRecords)
    """DNSRecord objects."""
    kept: dict[str, Cache] = field(default_factory=dict)
    """The caches in service by their place in the chain: a changed file does not empty them."""
