"""The topology as an SVG picture that follows the viewer's light or dark setting.

Columns from left to right by distance from the outside; one card a vertex with its endpoints grouped by zone; curved
edges as wide as the logarithm of the requests seen on them. Text widths are estimated for a monospaced face, so the
picture needs no font metrics and the same topology always gives the same bytes.
"""

from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import log2

from pilotage.observe.core.topology import Edge, Topology, Vertex

_CARD_WIDTH, _COLUMN_GAP, _ROW_GAP, _MARGIN = 300, 120, 28, 32
_HEAD, _DETAIL, _ZONE, _ENDPOINT, _PADDING = 34, 17, 22, 20, 10
_ANCHOR_GAP = 34  # room for a count above and a label below where an edge arrives
_LETTER = 6.6  # width of one character of the 11 px monospaced face

_COLOURS = {
    "Outside": "#64748b",
    "Ingress": "#7c3aed",
    "ClusterIP": "#2563eb",
    "Headless": "#0891b2",
    "NodePort": "#d97706",
    "LoadBalancer": "#db2777",
    "ExternalName": "#65a30d",
}
_LIGHT = {
    "paper": "#fbfbfd",
    "card": "#fff",
    "line": "#d5d9e2",
    "ink": "#16181d",
    "soft": "#687083",
    "zone": "#f1f3f8",
    "bar": "#c7d7fb",
}
_DARK = {
    "paper": "#101217",
    "card": "#191c23",
    "line": "#323846",
    "ink": "#e8eaf0",
    "soft": "#98a1b3",
    "zone": "#22262f",
    "bar": "#2c4377",
}
# Colours are written out, not CSS variables: drawing programs and converters that are no browsers know none.
_PALETTE = """text{{fill:{ink}}}.kind{{fill:#fff}}.paper{{fill:{paper}}}.card{{fill:{card};stroke:{line}}}
.zone{{fill:{zone}}}.bar{{fill:{bar}}}.soft,.label{{fill:{soft}}}.edge{{stroke:{soft}}}.count,.label{{stroke:{paper}}}"""
_STYLE = f"""
text{{font-family:ui-monospace,'SF Mono',Menlo,Consolas,monospace;font-size:11px}}
.name{{font-size:14px;font-weight:600}}.kind{{font-size:10px;font-weight:600}}.title{{font-size:16px;font-weight:600}}
.edge{{fill:none;stroke-opacity:.55}}.seen{{stroke-dasharray:5 4}}.count{{font-weight:700;font-size:12px}}
.label{{font-size:10px}}.count,.label{{paint-order:stroke;stroke-width:4px}}
{_PALETTE.format(**_LIGHT)}
@media(prefers-color-scheme:dark){{
{_PALETTE.format(**_DARK)}}}
"""


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a vertex is drawn, in pixels."""

    x: float
    y: float
    height: float

    def anchor(self, position: int, count: int) -> float:
        """Where the `position`-th of `count` edges meets this side: spread, so that their labels do not overlap."""
        usable = min(self.height, _ANCHOR_GAP * count)
        return self.y + (self.height - usable) / 2 + usable * (position + 0.5) / count


@dataclass(frozen=True, slots=True)
class _Curve:
    """From the right side of one card to the left side of another."""

    x1: float
    y1: float
    x2: float
    y2: float


def draw_svg(topology: Topology, *, title: str = "Topology") -> str:
    """A complete SVG document."""
    boxes, width, height = _layout(topology)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 4}">{escape(title)}</text>',
    ]
    curves = _curves(topology, boxes)
    parts += [_edge_line(edge, curve) for edge, curve in curves]
    parts += [_card(vertex, boxes[vertex.id]) for vertex in topology.vertices]
    parts += [_edge_text(edge, curve) for edge, curve in curves]
    return "\n".join([*parts, "</svg>", ""])


def _layout(topology: Topology) -> tuple[dict[str, _Box], float, float]:
    columns = {
        depth: list(vertices)
        for depth, vertices in groupby(topology.vertices, key=lambda vertex: topology.depths[vertex.id])
    }
    top = _MARGIN + 32
    heights = {depth: sum(_height(v) + _ROW_GAP for v in column) - _ROW_GAP for depth, column in columns.items()}
    tallest = max(heights.values(), default=0)
    boxes: dict[str, _Box] = {}
    for position, (depth, column) in enumerate(sorted(columns.items())):
        x = _MARGIN + position * (_CARD_WIDTH + _COLUMN_GAP)
        y = top + (tallest - heights[depth]) / 2
        for vertex in column:
            boxes[vertex.id] = _Box(x, y, _height(vertex))
            y += _height(vertex) + _ROW_GAP
    width = 2 * _MARGIN + len(columns) * (_CARD_WIDTH + _COLUMN_GAP) - _COLUMN_GAP
    return boxes, width, top + tallest + _MARGIN


def _height(vertex: Vertex) -> float:
    zones = len({(endpoint.zone, endpoint.node) for endpoint in vertex.endpoints})
    body = _DETAIL * len(vertex.detail) + _ZONE * zones + _ENDPOINT * len(vertex.endpoints)
    return _HEAD + body + (_PADDING if body else 0)


def _card(vertex: Vertex, box: _Box) -> str:
    colour = _COLOURS.get(vertex.kind, "#64748b")
    badge = len(vertex.kind) * _LETTER + 14
    parts = [
        f'<g transform="translate({box.x:.1f} {box.y:.1f})">',
        f'<rect class="card" width="{_CARD_WIDTH}" height="{box.height:.1f}" rx="9"/>',
        f'<rect width="5" height="{box.height:.1f}" rx="2.5" fill="{colour}"/>',
        f'<text class="name" x="16" y="22">{escape(_fit(vertex.name, 24))}</text>',
        f'<rect x="{_CARD_WIDTH - badge - 10:.1f}" y="9" width="{badge:.1f}" height="17" rx="8.5" fill="{colour}"/>',
        f'<text class="kind" x="{_CARD_WIDTH - badge / 2 - 10:.1f}" y="21" text-anchor="middle">'
        f"{escape(vertex.kind)}</text>",
    ]
    y: float = _HEAD
    for line in vertex.detail:
        parts.append(f'<text class="soft" x="16" y="{y + 11:.1f}">{escape(_fit(line, 42))}</text>')
        y += _DETAIL
    most = max((endpoint.requests for endpoint in vertex.endpoints), default=0)
    for (zone, node), group in groupby(vertex.endpoints, key=lambda endpoint: (endpoint.zone, endpoint.node)):
        where = " · ".join(part for part in (zone, node) if part) or "outside the cluster"
        parts.append(
            f'<rect class="zone" x="10" y="{y + 2:.1f}" width="{_CARD_WIDTH - 20}" height="{_ZONE - 4}" rx="4"/>'
        )
        parts.append(f'<text class="soft" x="18" y="{y + 15:.1f}">{escape(where)}</text>')
        y += _ZONE
        for endpoint in group:
            share = (_CARD_WIDTH - 32) * endpoint.requests / most if most else 0
            mark = colour if endpoint.ready else "none"
            parts.append(
                f'<rect class="bar" x="16" y="{y + 2:.1f}" width="{share:.1f}" height="{_ENDPOINT - 4}" rx="3"/>'
            )
            parts.append(f'<circle cx="24" cy="{y + 10:.1f}" r="3.5" fill="{mark}" stroke="{colour}"/>')
            parts.append(f'<text x="34" y="{y + 14:.1f}">{escape(_fit(endpoint.name, 30))}</text>')
            parts.append(
                f'<text x="{_CARD_WIDTH - 18}" y="{y + 14:.1f}" text-anchor="end">{endpoint.requests or ""}</text>'
            )
            y += _ENDPOINT
    return "".join([*parts, "</g>"])


def _curves(topology: Topology, boxes: dict[str, _Box]) -> list[tuple[Edge, _Curve]]:
    """Each edge with its ends; edges that meet at one card are ordered by where they come from or go to."""
    leaving: dict[str, list[Edge]] = {}
    arriving: dict[str, list[Edge]] = {}
    for edge in topology.edges:
        leaving.setdefault(edge.source, []).append(edge)
        arriving.setdefault(edge.target, []).append(edge)
    for edges in leaving.values():
        edges.sort(key=lambda edge: (boxes[edge.target].y, edge.target))
    for edges in arriving.values():
        edges.sort(key=lambda edge: (boxes[edge.source].y, edge.source))
    curves = []
    for edge in topology.edges:
        source, target = boxes[edge.source], boxes[edge.target]
        out, into = leaving[edge.source], arriving[edge.target]
        y1, y2 = source.anchor(out.index(edge), len(out)), target.anchor(into.index(edge), len(into))
        curves.append((edge, _Curve(source.x + _CARD_WIDTH, y1, target.x, y2)))
    return curves


def _edge_line(edge: Edge, curve: _Curve) -> str:
    bend = max(60.0, abs(curve.x2 - curve.x1) / 2)
    seen = "" if edge.declared else " seen"
    return (
        f'<path class="edge{seen}" stroke-width="{1.2 + log2(edge.requests + 1) / 1.6:.1f}" '
        f'd="M{curve.x1:.1f} {curve.y1:.1f}C{curve.x1 + bend:.1f} {curve.y1:.1f} '
        f'{curve.x2 - bend:.1f} {curve.y2:.1f} {curve.x2:.1f} {curve.y2:.1f}"/>'
    )


def _edge_text(edge: Edge, curve: _Curve) -> str:
    """Count and label beside the target's end, where edges that leave together have parted."""
    x, y = curve.x2 - 10, curve.y2
    parts = []
    if edge.requests:
        parts.append(f'<text class="count" x="{x:.1f}" y="{y - 6:.1f}" text-anchor="end">{edge.requests}</text>')
    if edge.label:
        text = escape(_fit(edge.label, 17))
        parts.append(f'<text class="label" x="{x:.1f}" y="{y + 13:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _fit(text: str, length: int) -> str:
    """At most `length` characters; pods are told apart by their end, so the middle goes."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[: length - 1 - half]}…{text[-half:]}"
