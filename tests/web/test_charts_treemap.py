"""Treemaps: areas that are sizes, within bounds whatever the tree."""

import itertools
import sys
from pathlib import Path

import pytest
from attrs import frozen
from drawings import NASTY, Rectangle, parsed, rectangles, texts, titles
from hypothesis import given
from hypothesis import strategies as st

from builder_web.binaries.contents import BinaryContents, read_contents
from builder_web.charts.treemap import MAX_ROWS, MAX_SIZE, treemap


@frozen
class T:
    name: str
    size: int
    parts: tuple["T", ...] = ()


def _tree(name: str, *parts: T) -> T:
    return T(name, sum(part.size for part in parts), parts)


PROGRAM = _tree(
    "program",
    _tree(".text", _tree("Lwt", T("bind_1", 40_000), T("map_2", 20_000)), T("main", 30_000)),
    _tree(".data", T("table", 9_500), T("tiny", 1)),
    T(".rodata", 499),
)


def _found(tree: T) -> dict[str, Rectangle]:
    return {r.title.rpartition(":")[0]: r for r in rectangles(parsed(treemap(tree, title="t").svg))}


def test_areas_are_sizes_and_parts_lie_in_what_they_belong_to() -> None:
    found = _found(PROGRAM)
    whole = 1000 * 620
    assert found[".text"].area / whole == pytest.approx(0.9, rel=0.01)
    assert found[".data"].area / whole == pytest.approx(0.095, rel=0.03)
    assert found[".text \u203a Lwt \u203a bind_1"].area / found[".text \u203a Lwt \u203a map_2"].area == pytest.approx(
        2, rel=0.05
    )
    assert found[".text"].holds(found[".text \u203a Lwt"])
    assert found[".text \u203a Lwt"].holds(found[".text \u203a Lwt \u203a bind_1"])
    assert found[".data"].holds(found[".data \u203a table"])
    assert ".data \u203a tiny" not in found
    for one, other in itertools.combinations(found.items(), 2):
        if not (one[0].startswith(other[0]) or other[0].startswith(one[0])):
            assert one[1].overlap(other[1]) < 1


def test_the_words() -> None:
    chart = treemap(PROGRAM, title="hello.hvt")
    assert chart.title == "hello.hvt"
    assert chart.description == (
        "97.7 KiB in all; the largest parts are .text with 87.9 KiB, 90.0 %, .data with 9.3 KiB, 9.5 %, "
        ".rodata with 499 bytes, 0.5 %."
    )
    assert chart.rows == (
        (".text", "87.9 KiB, 90.0 %"),
        (".text \u203a Lwt", "58.6 KiB, 60.0 %"),
        (".text \u203a Lwt \u203a bind_1", "39.1 KiB, 40.0 %"),
        (".text \u203a Lwt \u203a map_2", "19.5 KiB, 20.0 %"),
        (".text \u203a main", "29.3 KiB, 30.0 %"),
        (".data", "9.3 KiB, 9.5 %"),
        (".data \u203a table", "9.3 KiB, 9.5 %"),
        (".data \u203a tiny", "1 byte, 0.0 %"),
        (".rodata", "499 bytes, 0.5 %"),
    )
    root = parsed(chart.svg)
    assert root.get("aria-label") == "hello.hvt"
    assert ".text \u203a Lwt \u203a bind_1: 39.1 KiB, 40.0 %" in titles(root)
    assert {".text", "Lwt", "bind_1", "main"} <= set(texts(root))


def test_labels_stand_only_where_they_fit() -> None:
    long = _tree("p", T("x" * 500, 1000), *(T(f"a long name {i}", 1) for i in range(1000)))
    shown = texts(parsed(treemap(long, title="t").svg))
    assert shown
    assert all(len(text) < 120 for text in shown)


@pytest.mark.parametrize("tree", [T("p", 0), T("p", 7), _tree("p", T("a", 0)), T("p", 9, (T("a", 3),))])
def test_nearly_nothing_is_drawn_too(tree: T) -> None:
    parsed(treemap(tree, title="t").svg)


def test_a_drawing_is_bounded_and_deterministic() -> None:
    tree = _tree("p", *(_tree(NASTY * 20, *(T("&" * 999, 9 + i % 7) for i in range(60))) for _ in range(90)))
    chart = treemap(tree, title=NASTY * 99)
    parsed(chart.svg)
    assert MAX_SIZE * 0.9 < len(chart.svg.encode()) < 300_000
    assert len(chart.rows) == MAX_ROWS
    assert chart == treemap(tree, title=NASTY * 99)


def test_a_binary_of_the_system() -> None:
    with Path(sys.executable).resolve().open("rb") as file:
        contents = read_contents(file)
    assert isinstance(contents, BinaryContents)
    chart = treemap(contents.loaded, title="python")
    assert ".text" in texts(parsed(chart.svg))
    assert len(chart.svg.encode()) < 300_000


sizes = st.integers(0, 2**70)
leaves = st.builds(T, st.text(max_size=9), sizes)
trees = st.recursive(
    leaves, lambda parts: st.lists(parts, max_size=9).map(lambda found: _tree("group", *found)), max_leaves=60
)


@given(tree=trees)
def test_any_tree_is_drawn_within_the_drawing(tree: T) -> None:
    whole = Rectangle(0, 0, 1000, 620, "")
    assert all(whole.holds(rectangle, 1) for rectangle in rectangles(parsed(treemap(tree, title="t").svg)))
