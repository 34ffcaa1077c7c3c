"""A backend's whole audit at once, for tests without an event loop: what the proxy's auditor does part by part."""

from pilotage.proxy.backends import Backend
from pilotage.proxy.core.drift import Drift
from pilotage.proxy.core.plan import Plan


def audit(backend: Backend, plan: Plan) -> tuple[Drift, ...]:
    """Look at every part of the kernel, repair what differs from `plan`, which is in force, and return it."""
    found: list[Drift] = []
    waiting, differed = dict.fromkeys(backend.parts), set()
    while waiting:
        part = next(iter(waiting))
        del waiting[part]
        drift = backend.judge(part, backend.look(part), plan.elements.get(part, {}))
        found += drift
        if drift and part not in differed:
            differed.add(part)
            waiting |= dict.fromkeys(backend.after(part))
    return tuple(found)
