"""ELF files: their sections and the bytes of one, read from a file that may be damaged or hostile.

Only what is asked for is read, and each table within a bound: what a file says of its own sizes is never believed
before it is held against the file's size. Both classes (32 and 64 bit) and both byte orders are read.
"""

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from attrs import frozen

from builder.sizes import format_size

MAX_SECTIONS = 0x10000
"""Most sections that are read; objects with a section per function have some ten thousand."""

MAX_NAMES = 16 * 1024**2
"""Most bytes of the sections' names that are read."""

_MAX_NAME = 256
"""Bytes of a name; the rest is cut off, so that many names in one place cannot multiply it."""

NOBITS = 8
"""The kind of a section that takes memory but no bytes in the file."""

_PIECE = 256 * 1024
_ROWS = 4096  # entries of a table that are read at once

_MAGIC = b"\x7fELF"
_IDENT_SIZE = 16
_EXTENDED = 0xFFFF  # e_shstrndx where the index stands in the first section's link

# Behind the ident: type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum, shentsize, shnum, shstrndx
_HEADERS = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}
# name, type, flags, address, offset, size, link, info, alignment, entry size
_SECTIONS = {32: "IIIIIIIIII", 64: "IIQQQQIIQQ"}


@frozen(kw_only=True)
class Damaged:
    """A binary that cannot be read as what it seems to be. The reason is a sentence for people."""

    reason: str


class UnreadableElf(Exception):
    """The file is not what its begin says. Stays in this room: who asks from outside gets a value, Damaged."""


@frozen(kw_only=True)
class ElfSection:
    """An entry of the section table, as it stands there: offset and size may lie outside the file."""

    name: bytes
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int


@frozen(kw_only=True)
class Elf:
    """A file that begins as ELF, and its sections. An index into ``sections`` is one of the file's own tables."""

    file: BinaryIO
    size: int
    bits: int
    order: str
    """As ``struct`` has it: "<" for the least significant byte first, ">" for the other way."""
    sections: tuple[ElfSection, ...]

    def find(self, name: bytes) -> ElfSection | None:
        """Return the first section of this name."""
        return next((section for section in self.sections if section.name == name), None)

    def content(self, section: ElfSection, limit: int) -> bytes:
        """Return the bytes of a section. Raises UnreadableElf if there are more than ``limit`` or some are missing."""
        if section.size > limit:
            raise UnreadableElf(
                f"The section {shown(section.name)} has {format_size(section.size)}, which is too much."
            )
        if section.kind == NOBITS:
            raise UnreadableElf(f"The section {shown(section.name)} has no content.")
        return _read(self.file, self.size, section.offset, section.size, f"The section {shown(section.name)}")

    def pieces(self, section: ElfSection) -> Iterator[bytes]:
        """Yield the bytes of a section, in pieces of the same size for all. Raises UnreadableElf where some are missing."""
        for start in range(0, section.size, _PIECE):
            size = min(_PIECE, section.size - start)
            yield _read(self.file, self.size, section.offset + start, size, f"The section {shown(section.name)}")

    def rows(self, section: ElfSection, layout: str, limit: int) -> Iterator[tuple[Any, ...]]:
        """Yield the entries of a table, at most ``limit``, read in pieces. Raises UnreadableElf where they are not so."""
        entry = struct.Struct(self.order + layout)
        what = f"The section {shown(section.name)}"
        if section.entry_size != entry.size:
            raise UnreadableElf(f"{what} has entries of {section.entry_size} bytes instead of {entry.size}.")
        count = min(section.size // entry.size, limit)
        for first in range(0, count, _ROWS):
            size = min(_ROWS, count - first) * entry.size
            yield from entry.iter_unpack(_read(self.file, self.size, section.offset + first * entry.size, size, what))


def shown(name: bytes) -> str:
    """Return a name from a binary as text: bytes that are not UTF-8 replaced."""
    return name.decode("utf-8", "replace")


def read_elf(file: BinaryIO) -> Elf | None:
    """Read the section table of a seekable file; None for a file that is not ELF. Raises UnreadableElf."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    ident = file.read(_IDENT_SIZE)
    if not ident.startswith(_MAGIC):
        return None
    if len(ident) < _IDENT_SIZE:
        raise UnreadableElf(f"The file is cut short: an ELF file of {format_size(size)}.")
    bits, order = {1: 32, 2: 64}.get(ident[4]), {1: "<", 2: ">"}.get(ident[5])
    if bits is None or order is None:
        raise UnreadableElf("The header of the ELF file names neither 32 nor 64 bit, or no byte order.")
    header = struct.Struct(order + _HEADERS[bits])
    *_, offset, _, _, _, _, entry_size, count, names_index = header.unpack(
        _read(file, size, _IDENT_SIZE, header.size, "The header of the ELF file")
    )
    if offset == 0:
        return Elf(file=file, size=size, bits=bits, order=order, sections=())
    entry = struct.Struct(order + _SECTIONS[bits])
    if entry_size != entry.size:
        raise UnreadableElf(f"The section table has entries of {entry_size} bytes instead of {entry.size}.")
    first = entry.unpack(_read(file, size, offset, entry.size, "The section table"))
    count = count or first[5]
    names_index = first[6] if names_index == _EXTENDED else names_index
    if count > MAX_SECTIONS:
        raise UnreadableElf(f"The file has {count} sections, more than the {MAX_SECTIONS} that are read.")
    rows = list(entry.iter_unpack(_read(file, size, offset, count * entry.size, "The section table")))
    names = b""
    if names_index:
        if names_index >= count:
            raise UnreadableElf("The names of the sections are not among the sections.")
        _, _, _, _, names_offset, names_size, *_ = rows[names_index]
        if names_size > MAX_NAMES:
            raise UnreadableElf(f"The names of the sections take {format_size(names_size)}, which is too much.")
        names = _read(file, size, names_offset, names_size, "The table with the sections' names")
    sections = tuple(
        ElfSection(
            name=name_at(names, name),
            kind=kind,
            flags=flags,
            address=address,
            offset=start,
            size=length,
            link=link,
            entry_size=each,
        )
        for name, kind, flags, address, start, length, link, _, _, each in rows
    )
    return Elf(file=file, size=size, bits=bits, order=order, sections=sections)


def name_at(names: bytes, offset: int) -> bytes:
    """Return the name that begins there in a string table, without the NUL that ends it; empty outside the table."""
    end = names.find(b"\0", offset, offset + _MAX_NAME)
    return names[offset : end if end >= 0 else offset + _MAX_NAME]


def _read(file: BinaryIO, file_size: int, offset: int, size: int, what: str) -> bytes:
    """Read all these bytes, none before it is sure that the file has them."""
    if offset + size <= file_size:
        file.seek(offset)
        data = file.read(size)
        if len(data) == size:
            return data
    raise UnreadableElf(
        f"{what} ends at byte {offset + size}, behind the end of the file, which has {file_size}: cut short, or damaged."
    )
