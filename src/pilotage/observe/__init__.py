"""Looking at a cluster as a whole: who serves whom, where it runs, what was seen to pass.

Purpose: turn API objects and observed answers into something a person can take in at a glance.
Inputs → outputs: objects of a namespace and traffic records → a `Topology` value → text or SVG.
Invariants: reads only; the drawings are functions of the topology alone, so the same cluster gives the same picture.
Reading order: `core.topology`, `core.traffic`, `core.text`, `core.svg`.
Specifications: SVG 1.1.
"""

from pilotage.observe.core.topology import Snapshot, Topology, build_topology
from pilotage.observe.core.traffic import Traffic

__all__ = ["Snapshot", "Topology", "Traffic", "build_topology"]
