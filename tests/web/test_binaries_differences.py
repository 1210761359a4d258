"""Where two files differ."""

import io

import pytest
from elves import S, make_elf
from hypothesis import given
from hypothesis import strategies as st
from strategies import mutated
from uploads import binary

from builder_web.binaries.differences import MAX_SECTIONS, SectionDifference, different_sections, first_difference
from builder_web.binaries.elf import NOBITS, Damaged

LARGE = bytes(range(256)) * 4096  # four pieces


def _first(left: bytes, right: bytes) -> int | None:
    return first_difference(io.BytesIO(left), io.BytesIO(right))


def _sections(left: bytes, right: bytes) -> tuple[SectionDifference, ...] | Damaged | None:
    return different_sections(io.BytesIO(left), io.BytesIO(right))


@pytest.mark.parametrize(
    ("left", "right", "offset"),
    [
        (b"", b"", None),
        (b"a", b"", 0),
        (b"abc", b"abd", 2),
        (b"abc", b"abcd", 3),
        (LARGE, LARGE, None),
        (LARGE, LARGE[:-1], len(LARGE) - 1),
        (LARGE + b"x", LARGE + b"y", len(LARGE)),
    ],
)
def test_the_first_byte_that_differs(left: bytes, right: bytes, offset: int | None) -> None:
    assert _first(left, right) == offset
    assert _first(right, left) == offset


@given(data=st.binary(min_size=1), position=st.integers(0), start=st.sampled_from([0, 1, 256 * 1024 - 1, 256 * 1024]))
def test_a_changed_byte_is_found(data: bytes, position: int, start: int) -> None:
    position %= len(data)
    changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    assert _first(bytes(start) + data, bytes(start) + changed) == start + position


def test_sections_that_differ() -> None:
    same = [S(name=b".rodata", content=LARGE), S(name=b".bss", kind=NOBITS, size=2**40)]
    left = make_elf(
        [S(name=b".text", content=LARGE), *same, S(name=b".old", content=b"12"), S(name=b".x", content=b"1")]
    )
    right = make_elf(
        [*same, S(name=b".text", content=LARGE[:-1] + b"!"), S(name=b".x", content=b"1"), S(name=b".x", content=b"22")]
    )
    assert _sections(left, right) == (
        SectionDifference(name=".text", left=len(LARGE), right=len(LARGE)),
        SectionDifference(name=".old", left=2, right=None),
        SectionDifference(name=".shstrtab", left=38, right=36),
        SectionDifference(name=".x", left=None, right=2),
    )
    assert _sections(left, left) == ()


def test_builds_of_the_recordings() -> None:
    found = _sections(binary("hello-1"), binary("hello-3"))
    assert isinstance(found, tuple)
    assert {".note.solo5.manifest", ".text"} <= {section.name for section in found}


def test_what_is_not_elf_has_no_sections() -> None:
    assert _sections(binary("good"), binary("hello-1")) is None
    assert _sections(binary("hello-1"), b"") is None


def test_damage_is_a_sentence() -> None:
    assert isinstance(_sections(binary("hello-1"), binary("bad-elf-cut")), Damaged)
    assert _sections(make_elf([S(name=b"a", size=2**40)]), make_elf([])) == Damaged(
        reason="The sections of the ELF file take more than the whole file has."
    )


def test_many_sections_are_bounded() -> None:
    found = _sections(make_elf([S(name=b"s%d" % n, content=b"x") for n in range(1000)]), make_elf([]))
    assert isinstance(found, tuple)
    assert len(found) == MAX_SECTIONS


@given(data=mutated(st.just(binary("hello-1"))))
def test_any_damage_gives_an_answer(data: bytes) -> None:
    found = _sections(binary("hello-1"), data)
    assert found is None or isinstance(found, tuple | Damaged)
