from collections.abc import Sequence
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from builder_worker.console import MAX_LINE, End, LineCutter, Part, as_bytes, only_lines
from builder_worker.job import PART_AGE, _send_console

EURO = "\N{EURO SIGN}".encode()


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


@given(
    st.lists(st.sampled_from([b"\n", b"ab", b"\xff\0", EURO, b"x" * 40_000, EURO * 15_000]), max_size=12).map(b"".join),
    st.data(),
)
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


# --- lines that are not complete ----------------------------------------------------------------------------------------


class Writer:
    """A console to which is written after pauses, in seconds."""

    time = 0

    def skip(self, offset: int) -> None:
        raise AssertionError("nobody was here before")

    def __init__(self, *writes: tuple[float, bytes]) -> None:
        self._at = trio.current_time()
        self._writes = list(writes)

    async def receive_some(self) -> bytes:
        if not self._writes:
            return b""
        pause, data = self._writes[0]
        await trio.sleep_until(self._at + pause)
        self._at = trio.current_time()
        del self._writes[0]
        return data


async def _sent(*writes: tuple[float, bytes]) -> list[tuple[float, bytes]]:
    begun = trio.current_time()
    found: list[tuple[float, bytes]] = []

    async def note(lines: Sequence[bytes], *_: object) -> None:
        found.extend((round(trio.current_time() - begun, 1), line) for line in lines)

    await _send_console(Writer(*writes), note)
    assert as_bytes([line for _, line in found]).removesuffix(b"\n") == b"".join(
        data for _, data in writes
    ).removesuffix(b"\n")
    return found


@pytest.mark.parametrize(
    ("writes", "sent"),
    [
        ([(0, b"a\nb")], [(0, b"a"), (0, b"b")]),
        ([(0, b"Password: "), (5, b"x\n")], [(1, Part(b"Password: ")), (5, b"x")]),
        ([(0, b"Password: "), (5, b"\n"), (0, b"x\n")], [(1, Part(b"Password: ")), (5, End()), (5, b"x")]),
        ([(0, b"."), (0.9, b"."), (0.9, b".\n")], [(1.8, b"...")]),
        ([(0, b"."), (1.5, b"."), (1.5, b"")], [(1, Part(b".")), (2.5, Part(b".")), (3, End())]),
        ([(0, b"1%\r"), (2, b"2%\r"), (0.5, b"ok\n")], [(1, Part(b"1%\r")), (2.5, b"2%\rok")]),
        ([(0, b"5 " + EURO[:2]), (1.5, EURO[2:] + b"\n")], [(1, Part(b"5 ")), (1.5, EURO)]),
        ([(0, b"5 " + EURO[:2]), (9, b"\n")], [(1, Part(b"5 ")), (2, Part(EURO[:2])), (9, End())]),
        ([(0, b"\xff\x80" + EURO[:1]), (9, b"")], [(1, Part(b"\xff\x80")), (2, Part(EURO[:1])), (9, End())]),
        ([(0.5, b".")] * 30, [(PART_AGE + 0.5, Part(b"." * 20)), (15.0, b"." * 10)]),
    ],
)
async def test_a_part_of_a_line_is_sent_after_a_second_of_silence_and_goes_on(
    autojump_clock: trio.testing.MockClock, writes: list[tuple[float, bytes]], sent: list[tuple[float, bytes]]
) -> None:
    found = await _sent(*writes)
    assert found == sent
    assert [type(line) for _, line in found] == [type(line) for _, line in sent]


@given(
    st.lists(
        st.one_of(st.none(), st.sampled_from([b"\n", b"a", b"ab\n", EURO[:1], EURO[1:], b"\xff", b"x" * 70_000])),
        max_size=12,
    )
)
def test_whoever_reads_bytes_gets_them_as_they_came(writes: list[bytes | None]) -> None:
    cutter = LineCutter()
    lines = [line for data in writes for line in (cutter.part() if data is None else cutter.feed(data))]
    lines += cutter.finish()
    data = b"".join(filter(None, writes))
    assert as_bytes(lines) == (data if not data or data.endswith(b"\n") else data + b"\n")
    assert all(type(line) is not End for line in only_lines(lines))
    assert b"".join(only_lines(lines)) == data.replace(b"\n", b"")


@given(st.lists(st.one_of(st.none(), st.integers(1, 9), st.integers(60_000, 70_000))), st.text(min_size=1, max_size=9))
def test_no_part_of_text_ends_within_a_character(sizes: list[int | None], characters: str) -> None:
    """Unless that is all there is after a second of silence: here every part has more."""
    cutter = LineCutter()
    text = characters.replace("\n", "-").encode()
    for size in sizes:
        lines = cutter.feed(text * size) if size else cutter.part()
        for line in lines:
            line.decode()


def test_a_part_of_the_longest_line_ends_before_a_character() -> None:
    longest = MAX_LINE // len(EURO) * len(EURO)
    assert MAX_LINE - longest == 1
    assert _cut(EURO * 30_000, []) == [EURO * (longest // 3), EURO * (30_000 - longest // 3)]
    assert _cut(b"\x80" * 70_000, []) == [b"\x80" * MAX_LINE, b"\x80" * (70_000 - MAX_LINE)]
