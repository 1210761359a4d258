"""What takes the space in a binary: its sections, in them the units and modules that its symbols come from.

Every byte of a section counts once: where symbols overlap, the first one has it; what no symbol names is summed up.
Sizes are those in the file, or, where the file holds only what debuggers need, those that the sections have in the
program that it belongs to.
"""

import re
from itertools import pairwise
from typing import BinaryIO

from attrs import Factory, define, frozen

from builder_web.binaries.elf import NOBITS, Damaged, Elf, ElfSection, UnreadableElf, name_at, read_elf, shown
from builder_web.binaries.names import split_name

MAX_SYMBOLS = 500_000
"""Most symbols that are read, which takes up to 5 s and 100 MB; what the rest would name has no name."""

MAX_NAMES = 64 * 1024**2
"""Most bytes of the symbols' names; with more of them none is read."""

_SMALLEST = 4000
"""What is smaller than this part of the whole is summed up with its neighbours: at most so many parts on a level."""

_SYMTAB, _DYNSYM = 2, 11
_ALLOCATED = 2
_SYMBOLS = {32: "IIIBxH", 64: "IBxHQQ"}  # name, address, size, info, section; name, info, section, address, size
_FILE = 4  # kind of symbol: the source file of the local ones that follow
_PLACES = {0, 1, 2, 10}  # kinds of symbols that name bytes of sections: no type, object, function, indirect function
_ZEROED = re.compile(rb"\.[a-z]?bss")
_LABELS = re.compile(rb"\.L|\$[a-z][.\0]")  # an assembler's own labels; the marks between code and data on ARM


@frozen(kw_only=True)
class BinaryPart:
    """A part of a binary: a section, a unit, a symbol. The parts in it, largest first, take all of its bytes."""

    name: str
    size: int
    parts: tuple["BinaryPart", ...] = ()


@frozen(kw_only=True)
class BinaryContents:
    """What a binary consists of."""

    loaded: BinaryPart
    """All that is loaded when the program starts; below it the sections."""

    zeroed: int
    """Bytes that are only there while it runs (.bss); not among those loaded."""

    unloaded: int
    """Bytes for debuggers and linkers."""

    unnamed: str | None
    """Why the parts of sections have no names, or not all of them; a sentence for people."""


def read_contents(file: BinaryIO) -> BinaryContents | Damaged | None:
    """Read what a binary consists of, given as a seekable file; None for a file that is not ELF."""
    try:
        elf = read_elf(file)
        return None if elf is None else _read_contents(elf)
    except UnreadableElf as error:
        return Damaged(reason=str(error))


@define
class _Group:
    size: int = 0
    parts: dict[str, "_Group"] = Factory(dict)

    def add_below(self, path: tuple[str, ...], size: int) -> None:
        """Add bytes that this group has already counted."""
        group = self
        for name in path:
            group = group.parts.setdefault(name, _Group())
            group.size += size

    def part(self, name: str, smallest: int) -> BinaryPart:
        """Return this group as a part, those in it that are smaller summed up; a prefix of one name is that one."""
        kept = [(name, group) for name, group in self.parts.items() if group.size >= smallest]
        if not kept:
            return BinaryPart(name=name, size=self.size)
        parts = [group.part(name, smallest) for name, group in kept]
        if len(self.parts) == 1 and name.endswith("*"):
            return parts[0]
        named = sum(group.size for group in self.parts.values())
        smaller = named - sum(part.size for part in parts)
        if smaller:
            parts.append(BinaryPart(name=f"{len(self.parts) - len(kept)} smaller", size=smaller))
        if self.size > named:
            parts.append(BinaryPart(name="without a name", size=self.size - named))
        return BinaryPart(
            name=name, size=self.size, parts=tuple(sorted(parts, key=lambda part: (-part.size, part.name)))
        )


def _read_contents(elf: Elf) -> BinaryContents:
    loaded = {i: section for i, section in enumerate(elf.sections) if section.flags & _ALLOCATED and section.size}
    is_for_debuggers = all(section.kind == NOBITS or section.name.startswith(b".note") for section in loaded.values())
    zeroed = 0
    for index, section in list(loaded.items()):
        if section.kind != NOBITS:
            if section.offset + section.size > elf.size:
                raise UnreadableElf(f"The section {shown(section.name)} ends behind the end of the file.")
        elif not is_for_debuggers or _ZEROED.match(section.name):
            zeroed += section.size
            del loaded[index]
    unloaded = sum(s.size for s in elf.sections if not s.flags & _ALLOCATED and s.kind != NOBITS)
    whole = _Group(size=sum(section.size for section in loaded.values()))
    for section in loaded.values():
        whole.parts.setdefault(shown(section.name), _Group()).size += section.size
    unnamed = _add_symbols(elf, loaded, whole)
    return BinaryContents(
        loaded=whole.part("loaded", -(-whole.size // _SMALLEST)), zeroed=zeroed, unloaded=unloaded, unnamed=unnamed
    )


def _add_symbols(elf: Elf, loaded: dict[int, ElfSection], whole: _Group) -> str | None:
    """Add what the symbols name to the sections' groups; return why that is not all."""
    tables = sorted((s for s in elf.sections if s.kind in {_SYMTAB, _DYNSYM}), key=lambda table: table.kind)
    if not tables:
        return "The binary is stripped: it has no symbols."
    table = tables[0]
    try:
        names = elf.content(elf.sections[table.link], MAX_NAMES) if table.link < len(elf.sections) else b""
        units, symbols = _read_symbols(elf, table, names, loaded)
    except UnreadableElf as error:
        return f"The symbols cannot be read. {error}"
    symbols.sort()
    section_index, reached, group = -1, 0, whole
    for (index, address, minus_size, name, unit), following in pairwise([*symbols, (-1, 0, 0, 0, 0)]):
        section = loaded[index]
        if index != section_index:
            section_index, reached, group = index, section.address, whole.parts[shown(section.name)]
        section_end = section.address + section.size
        if minus_size:
            end = address - minus_size
        elif address >= reached and names.startswith(b"caml", name):  # no data of OCaml says its size
            end = following[1] if following[0] == index else section_end
        else:
            continue
        start, end = max(address, reached), min(end, section_end)
        if start < end:
            path = split_name(shown(name_at(names, name)), units[unit])
            group.add_below(path, end - start)
            reached = end
    if table.kind == _DYNSYM:
        return "The binary is stripped: only what it shares with others has names."
    if table.size // table.entry_size > MAX_SYMBOLS:
        return f"The binary has more than the {MAX_SYMBOLS} symbols that are read."
    return None


def _read_symbols(
    elf: Elf, table: ElfSection, names: bytes, loaded: dict[int, ElfSection]
) -> tuple[list[str | None], list[tuple[int, int, int, int, int]]]:
    """Return the source files, and the symbols of sections: section, address, size negated, name, source file.

    In the order of these the larger one of two in the same place comes first. Names are offsets, source files indices.
    """
    units: list[str | None] = [None]
    unit = 0
    symbols = []
    for row in elf.rows(table, _SYMBOLS[elf.bits], MAX_SYMBOLS):
        if elf.bits == 64:
            name, info, index, address, size = row
        else:
            name, address, size, info, index = row
        kind, is_global = info & 0xF, info >> 4
        if kind == _FILE:
            file = shown(name_at(names, name)).rpartition("/")[2]
            unit = len(units) if file else 0
            units.append(file or None)
        elif kind in _PLACES and index in loaded and (size or not _LABELS.match(names, name)):
            symbols.append((index, address, -size, name, 0 if is_global else unit))
    return units, symbols
