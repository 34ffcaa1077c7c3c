"""Small things everybody needs and that know nothing of Kubernetes.

Purpose: errors' root, clocks, backoff, supervised tasks, address pools, upgraded connections, threads that end.
Inputs → outputs: plain values in, plain values out.
Invariants: modules here import neither each other's siblings above `errors` nor anything else of the project.
Reading order: any; each module stands alone. `clock` and `tasks` are not re-exported: a core may import this package
but never a clock.
Specifications: none.
"""

from pilotage.kit.backoff import Backoff
from pilotage.kit.errors import InvariantError, PilotageError, UsageError

__all__ = ["Backoff", "InvariantError", "PilotageError", "UsageError"]
