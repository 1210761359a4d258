"""A treemap: rectangles in rectangles, as large as what they stand for.

The layout is the squarified one of Bruls, Huizing and van Wijk: rows along the shorter side, each as long as that makes
its rectangles squarer. What is largest is drawn first, until the drawing is as large as a drawing may be; what is left
out then is small, and has the colour of what it lies in.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

from attrs import frozen

from builder.sizes import format_size
from builder_web.charts import svg
from builder_web.charts.chart import Chart
from builder_web.charts.colours import HUES, ON
from builder_web.charts.text import cut, fitted

MAX_SIZE = 280_000
"""Bytes of a drawing, which a page takes without delay."""

MAX_ROWS = 100
"""Most numbers beside a drawing."""

_WIDTH, _HEIGHT = 1000.0, 620.0
_SMALLEST = 3.0  # width and height of what is drawn at all
_GAP = 1.0
_FONT, _BAND = 11.0, 15.0  # of a label, and the band that it stands in
_MAX_NAME = 80
_BELOW = " \u203a "


class Tree(Protocol):
    """Something with a size, and the parts that it consists of."""

    @property
    def name(self) -> str:
        """What it is called; any text."""

    @property
    def size(self) -> int:
        """In bytes; not less than its parts together."""

    @property
    def parts(self) -> "Sequence[Tree]":
        """What is in it, largest first."""


@frozen
class _Box:
    x: float
    y: float
    width: float
    height: float

    def inside(self, *, top: float, gap: float) -> "_Box":
        """Return what is left of a box when a band is cut off at its top and a gap on all sides."""
        width, height = self.width - 2 * gap, self.height - 2 * gap - top
        return _Box(self.x + gap, self.y + gap + top, max(width, 0.0), max(height, 0.0))


def treemap(tree: Tree, *, title: str) -> Chart:
    """Return the parts of a tree as a chart; each tells its name and size when it is pointed at."""
    drawn, budget = [], MAX_SIZE
    for element in _elements(tree):
        budget -= len(element.render().encode())
        if budget < 0:
            break
        drawn.append(element)
    description = _description(tree)
    return Chart(
        title=title,
        svg=svg.drawing(_WIDTH, _HEIGHT, *drawn, label=cut(title, _MAX_NAME)),
        description=description,
        rows=tuple(_rows(tree)),
    )


@frozen
class _Placed:
    """A part where it is to be drawn."""

    part: Tree
    path: str
    box: _Box
    hue: int
    depth: int

    @property
    def fill(self) -> str:
        """What holds others is darker, and the outermost is the darkest."""
        return HUES[self.hue % len(HUES)][0 if not self.part.parts else 2 if self.depth == 0 else 1]


def _elements(tree: Tree) -> Iterator[svg.Element]:
    """Yield all that is large enough to be seen, in the order of sizes: what lies in something comes after it."""
    waiting: list[tuple[int, int, _Placed]] = []
    numbers = itertools.count()  # of two parts of one size the one that was found first, so that nothing else decides

    def push(placed: _Placed) -> None:
        heapq.heappush(waiting, (-placed.part.size, next(numbers), placed))

    for hue, (part, box) in enumerate(_layout(tree.parts or [tree], _Box(0, 0, _WIDTH, _HEIGHT))):
        push(_Placed(part, part.name, box, hue, 0))
    while waiting:
        _, _, placed = heapq.heappop(waiting)
        part, box = placed.part, placed.box
        if box.width < _SMALLEST or box.height < _SMALLEST:
            continue
        label = fitted(part.name, _FONT, box.width - 8) if box.height >= _BAND else ""
        words = f"{cut(placed.path, _MAX_NAME)}: {_amount(part, tree)}"
        yield _rectangle(box if part.parts else box.inside(top=0, gap=_GAP / 2), label, words, placed.fill)
        room = box.inside(top=_BAND if label else 0.0, gap=_GAP)
        for inner, inner_box in _layout(part.parts, room):
            push(_Placed(inner, f"{placed.path}{_BELOW}{inner.name}", inner_box, placed.hue, placed.depth + 1))


def _rectangle(box: _Box, label: str, words: str, fill: str) -> svg.Element:
    title = svg.tag("title", words)
    rectangle = svg.tag("rect", title, x=box.x, y=box.y, width=box.width, height=box.height, fill=fill)
    if not label:
        return rectangle
    span = svg.tag("tspan", label, fill=ON, font_size=_FONT)  # a page's rules for text in drawings end at the text
    return svg.tag("g", rectangle, svg.tag("text", span, x=box.x + 4, y=box.y + 11, pointer_events="none"))


def _layout(parts: Sequence[Tree], box: _Box) -> Iterator[tuple[Tree, _Box]]:
    """Yield where the parts lie in the box, all of which they take; those too small to be seen are left out."""
    ordered = sorted((part for part in parts if part.size > 0), key=lambda part: (-part.size, part.name))
    total = sum(part.size for part in ordered)
    areas = [part.size / total * box.width * box.height for part in ordered]
    start = 0
    while start < len(ordered) and (side := min(box.width, box.height)) >= _SMALLEST:
        end = _row_end(areas, start, side)
        thickness = sum(areas[start:end]) / side
        along = 0.0
        for part, area in zip(ordered[start:end], areas[start:end], strict=True):
            length = area / thickness
            if box.width >= box.height:
                yield part, _Box(box.x, box.y + along, thickness, length)
            else:
                yield part, _Box(box.x + along, box.y, length, thickness)
            along += length
        if box.width >= box.height:
            box = _Box(box.x + thickness, box.y, box.width - thickness, box.height)
        else:
            box = _Box(box.x, box.y + thickness, box.width, box.height - thickness)
        start = end


def _row_end(areas: Sequence[float], start: int, side: float) -> int:
    """Return where a row ends that begins there: before what would make its worst rectangle longer."""
    total, worst = 0.0, math.inf
    for end in range(start, len(areas)):
        total += areas[end]
        square = (total / side) ** 2  # of the row's thickness
        ratio = max(areas[start] / square, square / areas[end])
        if ratio > worst:
            return end
        worst = ratio
    return len(areas)


def _description(tree: Tree) -> str:
    if not tree.parts:
        return f"{format_size(tree.size)} in all."
    largest = [f"{cut(part.name, _MAX_NAME)} with {_amount(part, tree)}" for part in tree.parts[:3]]
    return f"{format_size(tree.size)} in all; the largest parts are {', '.join(largest)}."


def _rows(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield the largest parts of all levels with their sizes, each followed by those in it."""
    parts = list(_walk(tree, ""))
    chosen = heapq.nlargest(MAX_ROWS, range(len(parts)), key=lambda index: parts[index][1].size)
    for index in sorted(chosen):
        path, part = parts[index]
        yield cut(path, 2 * _MAX_NAME), _amount(part, tree)


def _walk(tree: Tree, above: str) -> Iterator[tuple[str, Tree]]:
    for part in tree.parts:
        path = f"{above}{part.name}"
        yield path, part
        yield from _walk(part, f"{path}{_BELOW}")


def _amount(part: Tree, whole: Tree) -> str:
    return f"{format_size(part.size)}, {100 * part.size / max(whole.size, 1):.1f} %"
