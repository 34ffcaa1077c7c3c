"""The topology as lines of text, for a terminal.

A tree that starts outside: each edge with the requests seen on it, each Service with its endpoints by zone and node and
a bar of the share each answered. A Service drawn before is referred to, not repeated.
"""

from pilotage.observe.core.topology import Endpoint, Topology, Vertex
from pilotage.observe.core.traffic import OUTSIDE

BAR_WIDTH = 20


def draw_text(topology: Topology) -> str:
    """Lines joined by newlines, without colour."""
    vertices = {vertex.id: vertex for vertex in topology.vertices}
    lines = ["outside"]
    drawn: set[str] = set()

    def draw(vertex: str, indent: str) -> None:
        edges = topology.edges_from(vertex)
        for position, edge in enumerate(edges):
            last = position == len(edges) - 1
            target = vertices[edge.target]
            stem = indent + ("└─" if last else "├─")
            below = indent + ("   " if last else "│  ")
            count = f" {edge.requests} ▶ " if edge.requests else " ▶ "
            label = f"  [{edge.label}]" if edge.label else ""
            again = (
                "  (drawn above)" if target.id in drawn and (target.endpoints or topology.edges_from(target.id)) else ""
            )
            lines.append(f"{stem}{count}{_title(target)}{label}{again}")
            if target.id in drawn:
                continue
            drawn.add(target.id)
            stem_below = below + ("│  " if topology.edges_from(target.id) else "   ")
            lines.extend(stem_below + row for row in _rows(target.endpoints))
            draw(target.id, below)

    draw(OUTSIDE, "")
    unreached = [vertex for vertex in topology.vertices if vertex.id not in drawn and vertex.id != OUTSIDE]
    if unreached:
        lines.append("inside only")
        for vertex in unreached:
            lines.append(f"   {_title(vertex)}")
            lines.extend("      " + row for row in _rows(vertex.endpoints))
    return "\n".join(lines)


def _title(vertex: Vertex) -> str:
    kind = "" if vertex.kind == "Outside" else f"{vertex.kind} "
    return f"{kind}{vertex.name}  {' '.join(vertex.detail)}".rstrip()


def _rows(endpoints: tuple[Endpoint, ...]) -> list[str]:
    widest = max((len(endpoint.name) for endpoint in endpoints), default=0)
    most = max((endpoint.requests for endpoint in endpoints), default=0)
    rows = []
    for endpoint in endpoints:
        bar = "█" * round(BAR_WIDTH * endpoint.requests / most) if most else ""
        mark = "●" if endpoint.ready else "○"
        where = f"{endpoint.zone or '-'} {endpoint.node or '-'}"
        rows.append(
            f"{mark} {where}  {endpoint.name:<{widest}}  {endpoint.address:<15} {endpoint.requests:>5} {bar}".rstrip()
        )
    return rows
