"""Which package needs which: read from exports, reduced, and drawn."""

import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opam_uploads import DATA

from builder_web.charts.graph import MAX_DRAWN, describe, draw
from builder_web.charts.layers import arrange
from builder_web.graph import Edge, Graph, Node, in_words
from builder_web.opam.dependencies import dependencies
from builder_web.opam.switch import read_switch

MERLIN = dependencies(read_switch((DATA / "switches" / "merlin").read_bytes()))


def graph_of(*edges: str, roots: str = "a", alone: str = "") -> Graph:
    """Return the graph of edges such as ``ab``, or ``ab?`` for an optional one."""
    names = sorted(set("".join(edge[:2] for edge in edges)) | set(roots) | set(alone))
    return Graph(
        nodes=tuple(Node(name=name, version="1", is_root=name in roots, is_described=True) for name in names),
        edges=tuple(Edge(source=edge[0], target=edge[1], is_optional=edge[2:] == "?") for edge in edges),
    )


def edges_of(graph: Graph) -> list[str]:
    return [edge.source + edge.target for edge in graph.edges]


_GRAPHS = st.sets(st.text("abcdefgh", min_size=2, max_size=2).filter(lambda edge: edge[0] != edge[1])).map(
    lambda edges: graph_of(*sorted(edges))
)


def reachable(graph: Graph) -> set[tuple[str, str]]:
    found = {(edge.source, edge.target) for edge in graph.edges}
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "needed"),
    [
        ('"b"', ["b"]),
        ('["b" "c" "missing" "a"]', ["b", "c"]),
        ('["b" {>= "2" & build}]', ["b"]),
        ('["b" {with-test} "c" {with-doc & >= "1"} "d" {post}]', []),
        ('["b" {!with-test} "c" {with-test | os = "linux"}]', ["b", "c"]),
        ('["b" {with-test | false}]', []),
        ('["b" {with-test & (dev | build)} "c" {!(with-doc | with-test)}]', ["c"]),
        ('["b" | ("c" & "missing")]', ["b", "c"]),
        ('[("b" | "c") {with-test}]', []),
        ("[3 b]", []),
    ],
)
def test_what_a_formula_needs(formula: str, needed: list[str]) -> None:
    data = f'roots: "a.1" installed: ["a.1" "b.1" "c.1" "d.1"] package "a" {{ depends: {formula} depopts: "b" }}'
    graph = dependencies(read_switch(data.encode()))
    assert [edge.target for edge in graph.edges if not edge.is_optional] == needed
    assert [edge.target for edge in graph.edges if edge.is_optional] == ([] if "b" in needed else ["b"])
    assert [(node.name, node.is_root, node.is_described) for node in graph.nodes][:2] == [
        ("a", True, True),
        ("b", False, False),
    ]


def test_a_real_export() -> None:
    assert len(MERLIN.nodes) == 54
    assert Edge(source="merlin", target="yojson") in MERLIN.edges
    assert Edge(source="uutf", target="cmdliner", is_optional=True) in MERLIN.edges
    reduced = MERLIN.reduced()
    assert reachable(reduced) == reachable(MERLIN)
    assert len(reduced.edges) < len(MERLIN.edges) / 2


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_implied_edges_are_left_out() -> None:
    assert edges_of(graph_of("ab", "bc", "ac").reduced()) == ["ab", "bc"]
    assert edges_of(graph_of("ab", "bc", "cd", "ad", "bd", "ae").reduced()) == ["ab", "bc", "cd", "ae"]


@given(graph=_GRAPHS)
def test_a_reduced_graph_says_the_same(graph: Graph) -> None:
    assert reachable(graph.reduced()) == reachable(graph)
    order = graph.sorted_nodes()
    assert sorted(order) == sorted(node.name for node in graph.nodes)
    cyclic = any((b, a) in reachable(graph) for a, b in reachable(graph))
    assert cyclic or all(order.index(edge.source) < order.index(edge.target) for edge in graph.edges)


def test_the_nearest_part() -> None:
    part = graph_of("ab", "bc", "cd", "xy", roots="a").nearest(3)
    assert [node.name for node in part.nodes] == ["a", "b", "c"]
    assert edges_of(part) == ["ab", "bc"]
    assert len(graph_of("ab", "ac", "ad", roots="abcd").nearest(2).nodes) == 2


def test_graphs_in_words() -> None:
    assert in_words(graph_of("ba", "bc?", roots="b")) == (
        ("b 1", "needs a, c (optional)"),
        ("a 1", "needs nothing"),
        ("c 1", "needs nothing"),
    )
    unknown = Graph(nodes=(Node(name="a", version="", is_root=True, is_described=False),), edges=())
    assert in_words(unknown) == (("a", "not known what it needs"),)


# --- drawings --------------------------------------------------------------------------------------------------------


@given(graph=_GRAPHS)
def test_places_of_nodes(graph: Graph) -> None:
    layers = arrange(graph)
    rows: dict[int, list[float]] = {}
    for place, row in layers.rows.items():
        assert row >= 0
        if not place.is_trunk:
            rows.setdefault(place.column, []).append(row)
    for column in rows.values():
        column.sort()
        assert all(lower - upper >= 0.999 for upper, lower in itertools.pairwise(column))
    for line in layers.lines:
        assert line.target.column == line.source.column + 1


def test_a_trunk_joins_all_that_need_the_same() -> None:
    layers = arrange(graph_of("ab", "bc", "cd", "ad", "ed", "fd", roots="aef"))
    passing = [place for place in layers.rows if place.is_trunk]
    assert sorted((place.name, place.column) for place in passing) == [("d", 1), ("d", 2)]


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_drawing_of_a_real_export() -> None:
    svg = draw(MERLIN, title="Dependencies of merlin")
    assert sorted(texts(svg)) == sorted(f"{node.name} {node.version}" for node in MERLIN.nodes)
    assert svg == draw(MERLIN, title="Dependencies of merlin")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert [child.get("id") for child in root][:2] == str(root.get("aria-labelledby")).split()
    assert root[1].text == (
        "54 packages, 186 dependencies. Asked for: chrome-trace, dot-merlin-reader, dune, dune-action-plugin, "
        "dune-build-info and 18 more. What a package needs is on its right; a dashed line is optional."
    )
    assert len(re.findall('class="node root"', svg)) == 23
    width, height = float(str(root.get("width"))), float(str(root.get("height")))
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 < float(str(box.get("x"))) < width - float(str(box.get("width")))
        assert 0 < float(str(box.get("y"))) < height - float(str(box.get("height")))


@pytest.mark.parametrize("name", ["autobill", "hoare", "ts2ocaml", "webext"])
def test_drawings_without_most_opam_files(name: str) -> None:
    graph = dependencies(read_switch((DATA / "switches" / name).read_bytes()))
    svg = draw(graph, title=name)
    assert len(texts(svg)) == len(graph.nodes)
    assert "not known what" in svg


def test_a_drawing_of_nothing() -> None:
    assert texts(draw(Graph(nodes=(), edges=()), title="")) == []


def test_names_cannot_break_out() -> None:
    name = "</title><script>alert('\x00\x1b\ud800')</script>\"&"
    svg = draw(
        Graph(nodes=(Node(name=name, version="<b>", is_root=True, is_described=False),), edges=()), title='<&">\x07'
    )
    ET.fromstring(svg)

    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(svg)
    assert set(tags) <= {"svg", "title", "desc", "g", "rect", "text", "tspan"}
    assert svg.encode()


def test_drawings_are_bounded() -> None:
    names = [f"n{number}" for number in range(2_000)]
    nodes = tuple(Node(name=name * 20, version=name * 20, is_root=name == "n0", is_described=True) for name in names)
    chains = tuple(Edge(source=one.name, target=other.name) for one, other in itertools.pairwise(nodes))
    star = tuple(Edge(source=nodes[0].name, target=node.name) for node in nodes[2:])
    graph = Graph(nodes=nodes, edges=(*chains, *star))
    svg = draw(graph, title="")
    assert len(texts(svg)) == MAX_DRAWN
    assert len(svg) < 1_000_000
    assert "The 300 that are nearest to what was asked for are drawn." in describe(graph)
