"""`pilotage demo`: the case topology, end to end, with a transcript of every check.

Purpose: show a newcomer that packets, names and requests arrive, by asking and printing what answered.
Inputs → outputs: the manifests of the topology → a cluster, one line per check, a drawing, exit code 0 or 1.
Invariants: uses only what a user has (`pilotage`, `kubectl`, `pilotage-echo`); a check asks real servers and can fail;
everything started here is gone afterwards unless the user keeps it.
Reading order: `checks` (the list), `world` (how they ask), `run` (the order of things), `outside` (the world outside).
Specifications: none of its own.
"""

from pilotage.cli.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]
