"""The names of all steps in a configuration file. A new step is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from pilotage.dns.chain import (
    Guard,
    Step,
    acl,
    cache,
    cluster,
    forward,
    hosts,
    local,
    log,
    ratelimit,
    records,
    rewrite,
    search,
    template,
)
from pilotage.dns.chain.environment import Environment
from pilotage.dns.document import Section

Factory = Callable[[Environment], Step | Guard]

STEPS: dict[str, Callable[[Section], Factory]] = {
    "acl": acl.configure,
    "ratelimit": ratelimit.configure,
    "log": log.configure,
    "search": search.configure,
    "rewrite": rewrite.configure,
    "hosts": hosts.configure,
    "local": local.configure,
    "template": template.configure,
    "records": records.configure,
    "cluster": cluster.configure,
    "cache": cache.configure,
    "forward": forward.configure,
}
