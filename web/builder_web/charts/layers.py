"""Where the nodes of a graph are drawn: in columns, so that what a node needs is in columns on its right.

All edges into a node that pass other columns share one trunk, which runs through these columns as if it were a node; on
its way each source joins it. So the edges drawn grow with the nodes and not with the edges, and where many need the same,
one line says so. Within its column a node stands as near as possible to what it is joined with.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from builder_web.graph import Edge, Graph

_SWEEPS = 12  # more change nothing that one sees
_TRUNK_ROOM = 0.4  # rows


@frozen(kw_only=True)
class Place:
    """A node, or its trunk where it passes a column; ``name`` is the node's."""

    name: str
    column: int
    is_trunk: bool


@frozen(kw_only=True)
class Line:
    """Part of an edge, from a column to the next one."""

    source: Place
    target: Place
    is_optional: bool


@frozen(kw_only=True)
class Layers:
    """``rows`` says how far down each place is; nodes of a column are at least one row apart."""

    rows: Mapping[Place, float]
    lines: tuple[Line, ...]


def arrange(graph: Graph) -> Layers:
    """Return where nodes that need others, or are needed, have their places; the same for the same graph.

    Of a cycle, the edges that lead back to a column are left out.
    """
    columns = _columns(graph)
    lines = tuple(_lines(graph, columns))
    places: defaultdict[int, dict[Place, None]] = defaultdict(dict)
    for line in lines:
        for place in (line.source, line.target):
            places[place.column][place] = None
    ordered = [list(places[column]) for column in sorted(places)]
    before: defaultdict[Place, list[Place]] = defaultdict(list)
    after: defaultdict[Place, list[Place]] = defaultdict(list)
    for line in lines:
        before[line.target].append(line.source)
        after[line.source].append(line.target)
    rows: dict[Place, float] = {}
    for column in ordered:
        _stack(column, rows, {place: float(index) for index, place in enumerate(column)})
    for sweep in range(_SWEEPS):
        to_right = sweep % 2 == 0
        for column in ordered if to_right else reversed(ordered):
            _settle(column, rows, before if to_right else after)
    for column in ordered:
        both = {place: before[place] + after[place] for place in column}
        _stack(column, rows, {place: _mean(place, rows, both) for place in column})
    top = min(rows.values(), default=0.0)
    return Layers(rows={place: row - top for place, row in rows.items()}, lines=lines)


def _columns(graph: Graph) -> dict[str, int]:
    """Return how many steps the longest way to each node has."""
    targets = graph.targets()
    order = graph.sorted_nodes()
    columns = dict.fromkeys(order, 0)
    done: set[str] = set()
    for name in order:
        done.add(name)
        for target in targets[name]:
            if target not in done:
                columns[target] = max(columns[target], columns[name] + 1)
    return columns


def _lines(graph: Graph, columns: Mapping[str, int]) -> Iterator[Line]:
    into: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in graph.edges:
        if columns[edge.source] < columns[edge.target]:
            into[edge.target].append(edge)
    for target, edges in into.items():
        end = columns[target]
        places = {end: Place(name=target, column=end, is_trunk=False)}
        first = min(columns[edge.source] for edge in edges)
        for column in range(end - 1, first, -1):
            places[column] = Place(name=target, column=column, is_trunk=True)
            yield Line(source=places[column], target=places[column + 1], is_optional=False)
        for edge in edges:
            column = columns[edge.source]
            source = Place(name=edge.source, column=column, is_trunk=False)
            yield Line(source=source, target=places[column + 1], is_optional=edge.is_optional)


def _settle(column: list[Place], rows: dict[Place, float], neighbours: Mapping[Place, Sequence[Place]]) -> None:
    """Order a column by where its neighbours on one side are, and move each place towards them."""
    wanted = {place: _mean(place, rows, neighbours) for place in column}
    column.sort(key=lambda place: (wanted[place], rows[place]))
    _stack(column, rows, wanted)


def _mean(place: Place, rows: Mapping[Place, float], neighbours: Mapping[Place, Sequence[Place]]) -> float:
    joined = neighbours.get(place)
    return sum(rows[other] for other in joined) / len(joined) if joined else rows[place]


def _stack(column: Sequence[Place], rows: dict[Place, float], wanted: Mapping[Place, float]) -> None:
    """Give each place of a column the row that it wants, or the nearest one that leaves room and keeps the order.

    Places too close to one another become a block, which stands where its members want it on average.
    """
    blocks: list[tuple[float, list[tuple[Place, float]]]] = []  # the sum of where the begin is wanted; members, offsets
    for place in column:
        total, members = wanted[place], [(place, 0.0)]
        while blocks:
            last_total, last_members = blocks[-1]
            last, offset = last_members[-1]
            length = offset + _room(last, members[0][0])
            if last_total / len(last_members) + length <= total / len(members):
                break
            blocks.pop()
            total = last_total + total - length * len(members)
            members = last_members + [(member, inner + length) for member, inner in members]
        blocks.append((total, members))
    for total, members in blocks:
        for place, offset in members:
            rows[place] = total / len(members) + offset


def _room(upper: Place, lower: Place) -> float:
    return _TRUNK_ROOM if upper.is_trunk and lower.is_trunk else 0.7 if upper.is_trunk or lower.is_trunk else 1.0
