"""The dependency graph of a build, as SVG: what was asked for on the left, what it needs to the right of it.

Colours are the text's own in several strengths, so that it fits light and dark; classes name the parts for a style sheet.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

from attrs import frozen

from builder_web.charts.layers import Layers, Line, Place, arrange
from builder_web.graph import Graph, Node

MAX_DRAWN = 300
"""Most packages of a drawing, those nearest to what was asked for: more are not readable. The words name all."""

_ROW = 25.0  # all lengths in pixels
_BOX = 20.0
_GAP = 64.0  # between columns, for the curves
_MARGIN = 12.0
_CHARACTER = 7.25  # of a monospaced font of 12 pixels, rounded up
_PADDING = 7.0
_TRUNK = 6.0  # the width of a column that nothing but trunks pass
_GRID_WIDTH = 720.0  # at least, of the packages beside the graph
_MAX_NAME = 30  # characters
_MAX_VERSION = 16


@frozen(kw_only=True)
class _Box:
    """A node with its left end and its middle line."""

    node: Node
    x: float
    y: float

    @property
    def right(self) -> float:
        return self.x + _width(self.node)


def draw(graph: Graph, *, title: str) -> str:
    """Return an ``svg`` element; it contains no styles and no scripts, and its size is bounded."""
    shown = graph.nearest(MAX_DRAWN).reduced()
    layers = arrange(shown)
    nodes = {node.name: node for node in shown.nodes}
    places = [place for place in layers.rows if not place.is_trunk]
    lefts, widths = _columns(places, nodes)
    boxes = {
        place.name: _Box(node=nodes[place.name], x=lefts[place.column], y=_middle(layers.rows[place]))
        for place in places
    }
    right = max((lefts[column] + width for column, width in widths.items()), default=0.0)
    bottom = max((_middle(row) + _BOX / 2 for row in layers.rows.values()), default=0.0)
    alone = [node for node in shown.nodes if node.name not in boxes]
    beside = _grid(alone, top=bottom + (2 * _MARGIN if boxes else 0), width=max(right, _GRID_WIDTH))
    width = max([right, *(box.right for box in beside)]) + _MARGIN
    height = max([bottom, *(box.y + _BOX / 2 for box in beside)]) + _MARGIN
    needs = _needs(graph, nodes)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    words = f'<title id="graph-title">{_text(title)}</title><desc id="graph-words">{_text(describe(graph))}</desc>'
    parts = [*_edges(layers, lefts, widths, boxes)]
    parts += (_draw_box(box, needs[box.node.name]) for box in [*boxes.values(), *beside])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {size} role="img" '
        'aria-labelledby="graph-title graph-words" font-family="ui-monospace, monospace" font-size="12" '
        f'fill="currentColor">{words}{"".join(parts)}</svg>'
    )


def describe(graph: Graph) -> str:
    """Return what the drawing shows in sentences."""
    roots = [node.name for node in graph.nodes if node.is_root]
    named = ", ".join(roots[:5]) + (f" and {len(roots) - 5} more" if len(roots) > 5 else "")
    sentences = [f"{_count(len(graph.nodes), 'package')}, {_count(len(graph.edges), 'dependency', 'dependencies')}."]
    if roots:
        sentences.append(f"Asked for: {named}.")
    if graph.edges:
        sentences.append("What a package needs is on its right; a dashed line is optional.")
    undescribed = sum(not node.is_described for node in graph.nodes)
    if undescribed:
        sentences.append(f"Of {_count(undescribed, 'package')} it is not known what they need.")
    if len(graph.nodes) > MAX_DRAWN:
        sentences.append(f"The {MAX_DRAWN} that are nearest to what was asked for are drawn.")
    return " ".join(sentences)


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


# --- places ------------------------------------------------------------------------------------------------------------


def _middle(row: float) -> float:
    return _MARGIN + _BOX / 2 + row * _ROW


def _label(node: Node) -> tuple[str, str]:
    return _cut(node.name, _MAX_NAME), _cut(node.version, _MAX_VERSION)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _width(node: Node) -> float:
    name, version = _label(node)
    return 2 * _PADDING + _CHARACTER * (len(name) + (1 + len(version) if version else 0))


def _columns(places: Iterable[Place], nodes: Mapping[str, Node]) -> tuple[dict[int, float], dict[int, float]]:
    """Return where each column begins, and how wide it is."""
    widths: defaultdict[int, float] = defaultdict(lambda: _TRUNK)
    for place in places:
        widths[place.column] = max(widths[place.column], _width(nodes[place.name]))
    lefts: dict[int, float] = {}
    x = _MARGIN
    for column in range(max(widths, default=-1) + 1):
        lefts[column] = x
        x += widths[column] + _GAP
    return lefts, dict(widths)


def _grid(nodes: Sequence[Node], *, top: float, width: float) -> list[_Box]:
    """Place packages without any dependency below the graph, in columns."""
    cell = max(map(_width, nodes), default=0.0) + _MARGIN
    across = max(1, int((width - _MARGIN) // cell)) if nodes else 1
    down = -(-len(nodes) // across)
    return [
        _Box(node=node, x=_MARGIN + index // down * cell, y=top + _MARGIN + _BOX / 2 + index % down * _ROW)
        for index, node in enumerate(nodes)
    ]


# --- elements ----------------------------------------------------------------------------------------------------------


def _edges(
    layers: Layers, lefts: Mapping[int, float], widths: Mapping[int, float], boxes: Mapping[str, _Box]
) -> Iterable[str]:
    def curve(line: Line) -> str:
        source, target = line.source, line.target
        start = lefts[source.column] + widths[source.column] if source.is_trunk else boxes[source.name].right
        x, y = lefts[target.column], _middle(layers.rows[target])
        begin = f"M{start:.1f} {_middle(layers.rows[source]):.1f}"
        # From a short box the line first goes straight to the end of its column.
        straight = lefts[source.column] + widths[source.column]
        middle = straight + _GAP / 2
        end = f"C{middle:.1f} {_middle(layers.rows[source]):.1f} {middle:.1f} {y:.1f} {x:.1f} {y:.1f}"
        passing = f"H{x + widths[target.column]:.1f}" if target.is_trunk else ""
        return f"{begin}H{straight:.1f}{end}{passing}"

    kinds = (("edge", False, ""), ("edge optional", True, ' stroke-dasharray="4 3"'))
    for name, is_optional, dashes in kinds:
        yield f'<g class="{name}" fill="none" stroke="currentColor" stroke-opacity=".35" stroke-width="1.1"{dashes}>'
        lines = (line for line in layers.lines if line.is_optional is is_optional)
        for _, together in groupby(lines, key=lambda line: line.target.name):
            yield f'<path d="{"".join(map(curve, together))}"/>'
        yield "</g>"


def _draw_box(box: _Box, needs: str) -> str:
    node = box.node
    name, version = _label(node)
    kind = "node root" if node.is_root else "node" if node.is_described else "node unknown"
    fill, stroke = (".22", ".9") if node.is_root else (".07", ".3")
    dashes = "" if node.is_described else ' stroke-dasharray="2 2"'
    weight = ' font-weight="600"' if node.is_root else ""
    versioned = f' <tspan class="version" fill-opacity=".65">{_text(version)}</tspan>' if version else ""
    return (
        f'<g class="{kind}"><title>{_text(needs)}</title>'
        f'<rect x="{box.x:.1f}" y="{box.y - _BOX / 2:.1f}" width="{_width(node):.1f}" height="{_BOX:.0f}" rx="5" '
        f'fill-opacity="{fill}" stroke="currentColor" stroke-opacity="{stroke}"{dashes}/>'
        f'<text x="{box.x + _PADDING:.1f}" y="{box.y + 4:.1f}"{weight}>{_text(name)}{versioned}</text></g>'
    )


def _needs(graph: Graph, nodes: Mapping[str, Node]) -> dict[str, str]:
    """Return what is said of each of these nodes where a pointer rests on it."""
    targets: defaultdict[str, list[str]] = defaultdict(list)
    sources: defaultdict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        targets[edge.source].append(edge.target)
        sources[edge.target].append(edge.source)
    return {
        name: f"{name} {node.version}\nneeds {_few(targets[name])}\nneeded by {_few(sources[name])}"
        for name, node in nodes.items()
    }


def _few(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _text(text: str) -> str:
    """Return text for XML, which has no control characters."""
    return escape("".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text))
