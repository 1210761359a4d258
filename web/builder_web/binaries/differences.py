"""Where two files differ: the first byte, and the ELF sections."""

from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from attrs import frozen

from builder_web.binaries.elf import NOBITS, Damaged, Elf, ElfSection, UnreadableElf, read_elf, shown

MAX_SECTIONS = 200
"""Most sections that are told; objects may have one for each function."""

_CHUNK = 256 * 1024


@frozen(kw_only=True)
class SectionDifference:
    """A section that is not the same in both files; sizes in bytes, None where it is missing."""

    name: str
    left: int | None
    right: int | None


def first_difference(left: BinaryIO, right: BinaryIO) -> int | None:
    """Return the offset of the first byte that differs, be it that one file ends there; None for equal files."""
    left.seek(0)
    right.seek(0)
    offset = 0
    while True:
        one, other = left.read(_CHUNK), right.read(_CHUNK)
        if one != other:
            return offset + _common(one, other)
        if not one:
            return None
        offset += len(one)


def different_sections(left: BinaryIO, right: BinaryIO) -> tuple[SectionDifference, ...] | Damaged | None:
    """Return the sections that differ, in the order of the left file and those only on the right behind them.

    None unless both files are ELF. Sections of the same name are told apart by their order.
    """
    try:
        ours, theirs = read_elf(left), read_elf(right)
        if ours is None or theirs is None:
            return None
        _check_overlap(ours)
        _check_overlap(theirs)
        return tuple(_differences(ours, theirs))[:MAX_SECTIONS]
    except UnreadableElf as error:
        return Damaged(reason=str(error))


def _differences(left: Elf, right: Elf) -> Iterator[SectionDifference]:
    ours, theirs = dict(_named(left)), dict(_named(right))
    for key in ours | theirs:
        one, other = ours.get(key), theirs.get(key)
        if one is None or other is None or not _is_same(left, one, right, other):
            yield SectionDifference(
                name=shown(key[0]), left=None if one is None else one.size, right=None if other is None else other.size
            )


def _named(elf: Elf) -> Iterator[tuple[tuple[bytes, int], ElfSection]]:
    """Yield the sections by name and by how many of that name come before; not the first entry, which is none."""
    seen: Counter[bytes] = Counter()
    for section in elf.sections[1:]:
        yield (section.name, seen[section.name]), section
        seen[section.name] += 1


def _is_same(left: Elf, one: ElfSection, right: Elf, other: ElfSection) -> bool:
    if one.size != other.size or one.kind != other.kind:
        return False
    return one.kind == NOBITS or all(a == b for a, b in zip(left.pieces(one), right.pieces(other), strict=True))


def _check_overlap(elf: Elf) -> None:
    """Refuse sections that take more than the file has: they could have any number of bytes to read."""
    if sum(section.size for section in elf.sections[1:] if section.kind != NOBITS) > elf.size:
        raise UnreadableElf("The sections of the ELF file take more than the whole file has.")


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes are the same at the begin of two strings that differ."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
