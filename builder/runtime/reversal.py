"""Turns a stream of lines round in memory that does not grow with it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

BLOCK_SIZE = 1024 * 1024
"""Bytes of lines that are turned round in memory at once."""

MEMORY_SIZE = 8 * 1024 * 1024
"""Bytes of lines up to which no temporary file is made."""

_LINE_OVERHEAD = 64  # bytes that Python needs for a line beyond its content, so that empty lines count as well


class Reversal:
    """Takes lines, the last one first, and gives them back the first one first.

    They are turned round by blocks: each block is written to a temporary file in order, and the blocks are read from
    the last one to the first.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """``directory`` is where the temporary file is made; by default where such files are."""
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_SIZE, dir=str(directory) if directory else None)  # noqa: SIM115  close() ends it
        self._lengths: list[int] = []
        self._block: list[bytes] = []
        self._block_size = 0

    def close(self) -> None:
        """Give the temporary file up."""
        self._file.close()

    def add(self, line: bytes) -> None:
        """Take the line that comes before all the others."""
        self._block.append(line)
        self._block_size += len(line) + _LINE_OVERHEAD
        if self._block_size >= BLOCK_SIZE:
            self._lengths.append(self._file.write(b"".join(reversed(self._block))))
            self._block, self._block_size = [], 0

    def pieces(self) -> Iterator[bytes]:
        """Return all lines in order, joined to pieces. Nothing can be added after that."""
        yield b"".join(reversed(self._block))
        end = self._file.tell()
        for length in reversed(self._lengths):
            end -= length
            self._file.seek(end)
            yield self._file.read(length)
