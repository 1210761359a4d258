"""Lines of a console: bytes as a build wrote them, to HTML."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_web.pages.console import MAX_LINE, to_lines


def html(line: bytes) -> str:
    [only] = to_lines(b"1.000s:" + line + b"\n", first=1)
    return only.html


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"plain <b> & text", "plain &lt;b&gt; &amp; text"),
        (b"\ttab", "\ttab"),
        (b"\x1b[31mred\x1b[0m not", '<span class="fg1">red</span> not'),
        (
            b"\x1b[1;4;93mall\x1b[24;22m less\x1b[39m none",
            '<span class="bold underline fg11">all</span><span class="fg11"> less</span> none',
        ),
        (b"\x1b[mreset\x1b[;mtwice", "resettwice"),
        (b"\x1b[41;97m x \x1b[49m y", '<span class="bg1 fg15"> x </span><span class="fg15"> y</span>'),
        (b"\x1b[38;5;196mred", '<span class="fg9">red</span>'),
        (b"\x1b[38;5;4mblue", '<span class="fg4">blue</span>'),
        (b"\x1b[48;2;0;200;0mgreen", '<span class="bg2">green</span>'),
        (b"\x1b[38:5:250mgrey", '<span class="fg7">grey</span>'),
        (b"\x1b[38;5mcut", "cut"),
        (b"\x1b[7mturned\x1b[27m", '<span class="inverse">turned</span>'),
        (b"\x1b[2K\x1b[1Amoved\x1b[?25l", "moved"),
        (b"\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link", "textlink"),
        (b"half of one \x1b[3", "half of one "),
        (b"alone \x1b", "alone "),
        (b"\x1b[99999999999999999999mnumber", "number"),
        (b"\x00\x07\x08bell", "bell"),
        (b"bad \xff\xfe bytes", "bad \ufffd\ufffd bytes"),
        ("\u202eturned\u202c \u2028 round".encode(), "\\u202eturned\\u202c \\u2028 round"),
        (b"\x1b[<script>alert(1)</script>", "cript&gt;alert(1)&lt;/script&gt;"),
        (b"", ""),
    ],
)
def test_a_line_becomes_html(line: bytes, expected: str) -> None:
    if b"<script>" in line:
        assert "<script" not in html(line)
    else:
        assert html(line) == expected


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        (b"0.050s:", "0:00.050"),
        (b"61.002s:", "1:01.002"),
        (b"3727.120s:", "1:02:07.120"),
        (b"-1.500s:", "-0:01.500"),
        (b"", ""),
        (b"1.5s:", ""),
        (b"12345678901.000s:", ""),
    ],
)
def test_the_time_of_a_line(stamp: bytes, shown: str) -> None:
    [line] = to_lines(stamp + b"x\n", first=7)
    assert (line.number, line.time) == (7, shown)
    assert line.html.endswith("x")


def test_lines_are_numbered_from_the_first() -> None:
    assert [(line.number, line.html) for line in to_lines(b"a\n\nb\nc", first=5)] == [
        (5, "a"),
        (6, ""),
        (7, "b"),
        (8, "c"),
    ]
    assert to_lines(b"", first=1) == ()


def test_what_was_written_over_is_folded() -> None:
    [line] = to_lines(b"1.000s:1%\r20%\r\x1b[32m100%\x1b[0m\r\n", first=1)
    assert (line.html, line.folded) == ('<span class="fg2">100%</span>', 2)
    [line] = to_lines(b"1.000s:only a windows newline\r\n", first=1)
    assert (line.html, line.folded) == ("only a windows newline", 0)
    [line] = to_lines(b"1.000s:\r\r\r\n", first=1)
    assert (line.html, line.folded) == ("", 0)


def test_a_colour_goes_on_until_it_ends() -> None:
    lines = to_lines(b"\x1b[31mone\ntwo\n\x1b[0mthree\n", first=1)
    assert [line.html for line in lines] == ['<span class="fg1">one</span>', '<span class="fg1">two</span>', "three"]


@pytest.mark.parametrize("text", [b"x", b"&", b"\x1b[31m"])
def test_a_long_line_is_cut_where_nothing_breaks(text: bytes) -> None:
    shown = html(text * 1_000_000)
    assert len(shown) < 20 * MAX_LINE
    assert shown.endswith((" … the line goes on", " … the line goes on</span>"))
    assert "\x1b" not in shown


@given(
    st.lists(
        st.sampled_from(
            [
                b"\x1b[",
                b"\x1b]",
                b"31",
                b";",
                b"m",
                b"\x07",
                b"\r",
                b"\n",
                b"<i>",
                b"\xff",
                b"'",
                b"text",
                b"\xe2\x80\xae",
            ]
        )
    )
)
def test_whatever_is_written_stays_harmless(parts: list[bytes]) -> None:
    for line in to_lines(b"".join(parts), first=1):
        assert "<i>" not in line.html
        assert "\x1b" not in line.html
        assert line.html.count("<span") == line.html.count("</span>")


def test_a_screenful_of_colours_takes_no_time() -> None:
    """2 000 lines: 13 ms of processor time where this was written; the bound is far enough above it for any machine."""
    line = b"1.123s:\x1b[32m[12/2000]\x1b[0m \x1b[1mgcc\x1b[0m -c foo.c <b> -o foo.o something like a normal line\n"
    start = time.process_time()
    to_lines(line * 2000, first=1)
    assert time.process_time() - start < 0.5
