"""Parts of a console: each shows what the whole would show there."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder_web import console_index
from builder_web.console_index import ConsoleIndex, ConsoleIndexer, search
from builder_web.pages.console import to_lines
from builder_web.terminal import LONGEST, style_after

PIECES = st.sampled_from(
    [
        b"\n",
        b"text",
        b"\r",
        b"\x1b[31m",
        b"\x1b[m",
        b"\x1b[0m",
        b"\x1b[1;44m",
        b"\x1b[22m",
        b"\x1b[38;5;196m",
        b"\x1b[3",
        b"\xff",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces=st.lists(PIECES, max_size=60), place=st.integers(0, 20))
def test_a_part_looks_as_in_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], place: int
) -> None:
    monkeypatch.setattr(console_index, "BLOCK", 16)
    path = tmp_path / "console"
    path.write_bytes(data := b"".join(pieces))
    index = ConsoleIndex.from_bytes(ConsoleIndex.of(path).to_bytes())
    assert index == ConsoleIndex.of(path)
    whole = to_lines(data, first=1)
    assert index.lines == len(whole)
    part = index.read(path, first=place + 1, count=3)
    assert to_lines(part.content, first=place + 1, style=part.style) == whole[place : place + 3]
    matches, _ = search(path, index, b"text", first=1, count=10)
    for match in matches:
        assert to_lines(match.content, first=match.number, style=match.style) == whole[match.number - 1 : match.number]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces=st.lists(PIECES, max_size=60), step=st.integers(1, 50))
def test_an_index_is_the_same_however_the_bytes_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], step: int
) -> None:
    monkeypatch.setattr(console_index, "BLOCK", 16)
    path = tmp_path / "console"
    path.write_bytes(data := b"".join(pieces))
    indexer = ConsoleIndexer()
    for start in range(0, len(data), step):
        indexer.add(data[start : start + step])
    assert indexer.finish() == ConsoleIndex.of(path)


def test_a_colour_lasts_for_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "console"
    path.write_bytes(b"1.000s:\x1b[31mred\n" + b"2.000s:still\n" * 100_000 + b"3.000s:\x1b[0mplain\n")
    index = ConsoleIndex.of(path)
    part = index.read(path, first=100_001, count=2)
    assert [line.html for line in to_lines(part.content, first=1, style=part.style)] == [
        '<span class="fg1">still</span>',
        "plain",
    ]


@pytest.mark.parametrize("size", [0, 31, 32, 39])
def test_an_index_that_is_cut_off_is_none(size: int) -> None:
    with pytest.raises(ValueError):
        ConsoleIndex.from_bytes(ConsoleIndex.of(Path(__file__)).to_bytes()[:size])


def test_only_the_last_of_equal_sequences_counts() -> None:
    chance = random.Random(1)
    sequences = [b"\x1b[%dm" % chance.choice([1, 4, 22, 24, 31, 32, 39, 41, 49]) for _ in range(5000)]
    style = ""
    for sequence in sequences:
        style = style_after(sequence, style)
    assert set(style_after(b"".join(sequences)).split()) == set(style.split())


def test_a_sequence_that_is_too_long_is_none() -> None:
    long = b"\x1b[" + b"0" * LONGEST + b"31m"
    assert style_after(long) == ""
    assert to_lines(long + b"text", first=1)[0].html == "text"
