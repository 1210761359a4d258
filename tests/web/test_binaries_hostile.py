"""Files whose tables lie: every reader gives an answer, soon and in little memory, whatever sizes and places they name."""

import io
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import BinaryIO

import pytest
from elves import FUNCTION, GLOBAL, S, Symbol, make_elf
from hypothesis import given
from hypothesis import strategies as st
from uploads import binary, debug

from builder_web.binaries.contents import read_contents
from builder_web.binaries.differences import different_sections
from builder_web.binaries.solo5 import read_solo5

HONEST = binary("hello-1")
FILES = {
    "debug": debug("hello-1").content,
    "32 bit": make_elf([S(name=b".text", content=bytes(64))], [Symbol(name=b"f", size=9)] * 9, bits=32, order=">"),
    "unikernel": binary("damaged-empty"),
}
EXTREMES = [0, 1, 2, 3, 7, 8, 11, 24, 64, 0xFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
READERS: list[Callable[[BinaryIO], object]] = [
    read_solo5,
    read_contents,
    lambda file: different_sections(io.BytesIO(HONEST), file),
]


@st.composite
def lying(draw: st.DrawFn) -> bytes:
    """Return a file with some fields of its header and tables set to what they should not be."""
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    order = "<" if data[5] == 1 else ">"
    for _ in range(draw(st.integers(1, 6))):
        size, kind = draw(st.sampled_from([(2, "H"), (4, "I"), (8, "Q")]))
        value = draw(st.sampled_from([*EXTREMES, len(data), len(data) - 1])) % 2 ** (8 * size)
        behind = draw(st.sampled_from([0, len(data) // 2]))  # headers come first, tables last
        position = draw(st.integers(behind // size, len(data) // size - 1)) * size
        struct.pack_into(order + kind, data, position, value)
    return bytes(data)


@pytest.mark.parametrize("reader", READERS)
@given(data=lying())
def test_any_lie_gives_an_answer(reader: Callable[[BinaryIO], object], data: bytes) -> None:
    reader(io.BytesIO(data))


class _Sparse(io.RawIOBase):
    """A file of any size that begins with some bytes; all else is zero."""

    def __init__(self, begin: bytes, size: int) -> None:
        super().__init__()
        self._begin, self._size, self._at = begin, size, 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + (self._size if whence == 2 else 0)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        size = min(size, self._size - self._at) if size >= 0 else self._size - self._at
        data = self._begin[self._at : self._at + size]
        self._at += size
        return data + bytes(size - len(data))


def _file_of_a_terabyte(names: int, symbols: int) -> _Sparse:
    """Return a file that has all that its tables promise: sections' names and symbols of so many bytes."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 4, 3)
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 2, 0, 0, 2**40, 0, 0, 1, 0),
        (1, 2, 0, 0, 4096, symbols, 3, 0, 1, 24),
        (1, 3, 0, 0, 2**20, names, 0, 0, 1, 0),
    ]
    table = b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in sections)
    row = struct.pack("<IBxHQQ", 1, GLOBAL << 4 | FUNCTION, 1, 0, 1)
    return _Sparse((header + table).ljust(4096, b"\0") + row * 1000, 2**40 + 2**30)


@pytest.mark.parametrize("names", [2**10, 2**40])
@pytest.mark.parametrize("symbols", [24_000, 2**40 // 24 * 24])
@pytest.mark.parametrize("reader", READERS[:2])
def test_promises_of_terabytes_that_are_kept(reader: Callable[[BinaryIO], object], names: int, symbols: int) -> None:
    file = _file_of_a_terabyte(names, symbols)
    started = time.process_time()
    tracemalloc.start()
    try:
        reader(file)  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024**2
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 20
