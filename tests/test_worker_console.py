from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder_worker.console import MAX_LINE, LineCutter


def _cut(data: bytes, sizes: list[int]) -> list[bytes]:
    cutter = LineCutter()
    ends = sorted({min(size, len(data)) for size in sizes} | {0, len(data)})
    lines = [line for start, end in pairwise(ends) for line in cutter.feed(data[start:end])]
    return lines + cutter.finish()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\nb\0\xff\n", [b"a\r", b"b\0\xff"]),
        (b"x" * MAX_LINE + b"\n", [b"x" * MAX_LINE]),
        (b"x" * MAX_LINE, [b"x" * MAX_LINE]),
        (b"x" * MAX_LINE + b"y\nz\n", [b"x" * MAX_LINE, b"y", b"z"]),
        (b"x" * (3 * MAX_LINE), [b"x" * MAX_LINE] * 3),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_lines_end_at_newlines_and_at_the_limit(data: bytes, lines: list[bytes]) -> None:
    assert _cut(data, []) == lines


@given(st.lists(st.sampled_from([b"\n", b"ab", b"\xff\0", b"x" * 40_000]), max_size=12).map(b"".join), st.data())
def test_how_the_bytes_arrive_makes_no_difference(data: bytes, draw: st.DataObject) -> None:
    sizes = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    lines = _cut(data, sizes)
    assert lines == _cut(data, [])
    assert all(len(line) <= MAX_LINE for line in lines)
    assert b"".join(lines) == data.replace(b"\n", b"")


@given(st.binary(max_size=300))
def test_short_lines_are_exactly_those_between_newlines(data: bytes) -> None:
    expected = data.split(b"\n")
    assert _cut(data, [7, 20, 100]) == (expected if expected[-1] else expected[:-1])


def test_a_line_without_end_is_not_kept() -> None:
    cutter = LineCutter()
    total = 0
    for _ in range(1000):
        total += sum(map(len, cutter.feed(b"x" * 10_000)))
    (rest,) = cutter.finish()
    assert len(rest) <= MAX_LINE
    assert total + len(rest) == 10_000_000
