"""Words for times and texts; and that templates show all there is to show."""

import ast
import datetime as dt
from pathlib import Path

import attrs
import jinja2
import pytest
from jinja2 import nodes

import builder_web
from builder.model import Instant
from builder_web.charts.chart import Chart
from builder_web.pages import links, models, parts, pieces, words

PROGRAM = Path(builder_web.__file__).parent


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "unknown"),
        (0, "0 ms"),
        (0.5, "500 ms"),
        (58.5, "58.5 s"),
        (61, "1 min 1 s"),
        (3599.9, "59 min 59 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_duration_has_two_units_that_count(seconds: float, shown: str) -> None:
    assert words.duration(dt.timedelta(seconds=seconds)) == shown


def test_a_time_is_shown_as_the_original_does() -> None:
    assert words.exact_time(Instant(1_763_632_800_123)) == "2025-11-20 10:00:00Z"
    assert words.exact_time(Instant(-62_167_219_200_000)) == "0000-01-01 00:00:00Z"


def test_a_number_agrees_with_its_noun() -> None:
    assert [words.count(number, "entry", "entries") for number in (0, 1, 1234)] == [
        "0 entries",
        "1 entry",
        "1\u202f234 entries",
    ]
    assert words.count(2, "build") == "2 builds"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü \u00a0", "plain ü \u00a0"),
        ("a\nb\tc", "a\nb\tc"),
        ("\u202ex", "\\u202ex"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        ("\x1b", "\\x1b"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert words.harmless(text) == shown
    assert words.harmless(7) == 7


def used() -> set[str]:
    """Return every name that a template or a module of the program gets from something."""
    environment = jinja2.Environment(autoescape=True)
    names: set[str] = set()
    for path in (PROGRAM / "pages" / "templates").iterdir():
        tree = environment.parse(path.read_text())
        names |= {node.attr for node in tree.find_all(nodes.Getattr)}
        names |= {
            node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)
        }  # selectattr("state", …)
    for path in PROGRAM.rglob("*.py"):
        names |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    return names


def test_nothing_is_kept_that_no_page_shows() -> None:
    """What vulture says of other rooms, which cannot read templates."""
    names = used()
    shown = {
        f"{module.__name__}.{kind.__name__}.{field.name}": field.name
        for module in (models, parts)
        for kind in vars(module).values()
        if isinstance(kind, type) and attrs.has(kind) and kind is not Chart
        for field in attrs.fields(kind)
    }
    shown |= {f"Links.{name}": name for name in vars(links.Links) if not name.startswith("_")}
    shown |= {
        f"pieces.{name}": name
        for name, value in vars(pieces).items()
        if getattr(value, "__module__", "") == pieces.__name__
    }
    assert [place for place, name in shown.items() if name not in names | {"prefix", "origin"}] == []
