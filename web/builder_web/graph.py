"""Packages and which needs which. There may be cycles."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen


@frozen(kw_only=True)
class Node:
    """A package. ``is_root``: it was asked for. ``is_described``: it is known what it needs."""

    name: str
    version: str
    is_root: bool
    is_described: bool


@frozen(kw_only=True, order=True)
class Edge:
    """``source`` needs ``target``, by their names; ``is_optional``: it would do without."""

    source: str
    target: str
    is_optional: bool = False


@frozen(kw_only=True)
class Graph:
    """Nodes have different names, and edges lead from node to node, once each."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def nearest(self, limit: int) -> "Graph":
        """Return the part that is fewest steps away from the roots, of at most ``limit`` nodes."""
        targets = self.targets()
        roots = [node.name for node in self.nodes if node.is_root]
        found = dict.fromkeys(roots)
        queue = roots
        while queue and len(found) < limit:
            queue = [target for name in queue for target in targets[name] if target not in found]
            found.update(dict.fromkeys(queue))
            queue = list(dict.fromkeys(queue))
        found.update(dict.fromkeys(node.name for node in self.nodes))
        kept = set(list(found)[:limit])
        return Graph(
            nodes=tuple(node for node in self.nodes if node.name in kept),
            edges=tuple(edge for edge in self.edges if edge.source in kept and edge.target in kept),
        )

    def targets(self) -> Mapping[str, list[str]]:
        """Return what each node needs, in the order of the edges."""
        targets: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for edge in self.edges:
            targets[edge.source].append(edge.target)
        return targets

    def sorted_nodes(self) -> tuple[str, ...]:
        """Return names so that each comes before those that it needs, but for those through which it needs itself."""
        targets = self.targets()
        finished: dict[str, None] = {}
        begun: set[str] = set()
        for start in self._starts():
            path = [(start, iter(targets[start]))] if start not in begun else []
            begun.add(start)
            while path:
                name, rest = path[-1]
                following = next((target for target in rest if target not in begun), None)
                if following is None:
                    finished[name] = None
                    path.pop()
                else:
                    begun.add(following)
                    path.append((following, iter(targets[following])))
        return tuple(reversed(finished))

    def _starts(self) -> list[str]:
        needed = {edge.target for edge in self.edges}
        return [node.name for node in sorted(self.nodes, key=lambda node: (node.name in needed, not node.is_root))]

    def reduced(self) -> "Graph":
        """Return the graph without the edges that others imply: what is needed by what one needs. Cycles stay whole.

        The time and the memory grow by the square of the nodes.
        """
        order = self.sorted_nodes()
        position = {name: index for index, name in enumerate(order)}
        forward: defaultdict[str, list[Edge]] = defaultdict(list)
        kept: set[Edge] = set()
        for edge in self.edges:
            if position[edge.source] < position[edge.target]:
                forward[edge.source].append(edge)
            else:
                kept.add(edge)
        reached: dict[str, int] = {}  # a bit for each node, by its position
        for name in reversed(order):
            seen = 0
            for edge in sorted(forward[name], key=lambda edge: position[edge.target]):
                if not seen >> position[edge.target] & 1:
                    kept.add(edge)
                    seen |= 1 << position[edge.target] | reached[edge.target]
            reached[name] = seen
        return evolve(self, edges=tuple(edge for edge in self.edges if edge in kept))


def in_words(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Return each package with what it needs, for those who don't see a drawing; those that were asked for come first."""
    needs: defaultdict[str, list[str]] = defaultdict(list)
    for edge in graph.edges:
        needs[edge.source].append(edge.target + (" (optional)" if edge.is_optional else ""))
    nodes: Iterable[Node] = sorted(graph.nodes, key=lambda node: (not node.is_root, node.name.lower(), node.name))
    return tuple((f"{node.name} {node.version}".strip(), _words(node, needs[node.name])) for node in nodes)


def _words(node: Node, needs: Sequence[str]) -> str:
    if needs:
        return "needs " + ", ".join(sorted(needs))
    return "needs nothing" if node.is_described else "not known what it needs"
