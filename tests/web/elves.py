"""Small ELF files of both classes and byte orders."""

import struct
from collections.abc import Sequence

from attrs import frozen

from builder_web.binaries.elf import NOBITS

PROGBITS, SYMTAB, STRTAB = 1, 2, 3
ALLOCATED = 2
OBJECT, FUNCTION, FILE = 1, 2, 4
LOCAL, GLOBAL = 0, 1

_HEADERS = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}
_SECTIONS = {32: "IIIIIIIIII", 64: "IIQQQQIIQQ"}


@frozen(kw_only=True)
class S:
    """A section; ``size`` is that of its content unless it says another."""

    name: bytes
    content: bytes = b""
    kind: int = PROGBITS
    flags: int = ALLOCATED
    address: int = 0
    size: int | None = None
    link: int = 0
    entry_size: int = 0


@frozen(kw_only=True)
class Symbol:
    name: bytes
    address: int = 0
    size: int = 0
    section: int = 1
    """As in the file: 1 is the first one given."""
    kind: int = FUNCTION
    binding: int = GLOBAL


def make_elf(sections: Sequence[S], symbols: Sequence[Symbol] = (), *, bits: int = 64, order: str = "<") -> bytes:
    """Return a file with these sections, and the table of symbols behind them if there are any."""
    rows = [S(name=b"", kind=0, flags=0), *sections]
    if symbols:
        names, table = bytearray(1), bytearray(24 if bits == 64 else 16)
        for symbol in symbols:
            offset, info = len(names), symbol.binding << 4 | symbol.kind
            names += symbol.name + b"\0"
            if bits == 64:
                table += struct.pack(order + "IBxHQQ", offset, info, symbol.section, symbol.address, symbol.size)
            else:
                table += struct.pack(order + "IIIBxH", offset, symbol.address, symbol.size, info, symbol.section)
        rows.append(
            S(
                name=b".symtab",
                kind=SYMTAB,
                flags=0,
                content=bytes(table),
                link=len(rows) + 1,
                entry_size=24 if bits == 64 else 16,
            )
        )
        rows.append(S(name=b".strtab", kind=STRTAB, flags=0, content=bytes(names)))
    labels = b"".join(row.name + b"\0" for row in rows) + b".shstrtab\0"
    rows.append(S(name=b".shstrtab", kind=STRTAB, flags=0, content=labels))
    header = struct.Struct(order + _HEADERS[bits])
    entry = struct.Struct(order + _SECTIONS[bits])
    body, headers, label = b"", b"", 0
    for row in rows:
        size = len(row.content) if row.size is None else row.size
        offset = 16 + header.size + len(body)
        headers += entry.pack(label, row.kind, row.flags, row.address, offset, size, row.link, 0, 1, row.entry_size)
        label += len(row.name) + 1
        body += b"" if row.kind == NOBITS else row.content
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    start = 16 + header.size
    return (
        ident
        + header.pack(2, 62, 1, 0, 0, start + len(body), 0, start, 0, 0, entry.size, len(rows), len(rows) - 1)
        + body
        + headers
    )
