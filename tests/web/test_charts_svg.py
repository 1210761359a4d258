"""The writing of SVG, the width of text, the colours."""

import pytest
from drawings import NASTY, parsed, texts
from hypothesis import given
from hypothesis import strategies as st

from builder_web.charts import svg
from builder_web.charts.colours import BAD, GOOD, HUES, NEUTRAL, ON
from builder_web.charts.text import cut, fitted, width

any_text = st.text(st.characters(codec=None)) | st.just(NASTY)


def test_an_element_as_it_stands_in_a_document() -> None:
    element = svg.tag(
        "text", 'a "b" & <c>', svg.tag("title", "\u202e\udcff\x00"), x=1.25, class_="k", text_anchor=None, y=-0.01
    )
    assert element.render() == (
        '<text x="1.2" class="k" y="0">a &quot;b&quot; &amp; &lt;c&gt;<title>\\u202e\\xff\\x00</title></text>'
    )
    assert svg.tag("path", stroke_width=2).render() == '<path stroke-width="2"/>'


@given(text=any_text)
def test_any_text_is_text(text: str) -> None:
    drawn = svg.drawing(1, 1, svg.tag("text", text, id=text), label=text or "-")
    (found,) = texts(parsed(drawn))
    assert found.isprintable()
    assert drawn.encode()


@pytest.mark.parametrize(
    ("text", "room", "drawn"),
    [
        ("hello", 100, "hello"),
        ("hello world", 50, "hello\u2026"),
        ("hello", 20, ""),
        ("", 0, ""),
        ("\x1b\u202e", 200, "\\x1b\\u202e"),
        ("\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587\u4e2d", 76, "\u4e2d\u6587\u4e2d\u6587\u4e2d\u2026"),
    ],
)
def test_text_fits(text: str, room: float, drawn: str) -> None:
    assert fitted(text, 11, room) == drawn


@given(text=any_text, room=st.floats(0, 500))
def test_any_text_fits(text: str, room: float) -> None:
    assert width(fitted(text, 11, room), 11) <= room


def test_text_is_cut_as_it_is_drawn() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde\u2026"
    assert cut("\x00" * 9, 6) == "\\x00\\\u2026"


def _luminance(colour: str) -> float:
    """As WCAG defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colour", [*(hue[0] for hue in HUES), NEUTRAL, GOOD, BAD])
def test_colours_stand_out_from_light_and_dark_pages(colour: str) -> None:
    assert _contrast(colour, "#ffffff") >= 3
    assert _contrast(colour, "#1b1d20") >= 3


@pytest.mark.parametrize("colour", [*(tone for hue in HUES for tone in hue), NEUTRAL, GOOD, BAD])
def test_text_on_colours_is_readable(colour: str) -> None:
    assert _contrast(colour, ON) >= 4.5
