"""Where the lines of a console file begin, so that any part of it is found without reading the rest, and its SHA-256."""

import hashlib
import json
import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from attrs import frozen

from builder_web.terminal import LONGEST, style_after

BLOCK = 256 * 1024
"""Bytes for which the index has one entry: 32 KB of index for a console of 1 GB."""

MAX_PART = 4 * 1024 * 1024
"""Most bytes of a part that is shown at once, however long its lines are."""

MAX_SEARCHED = 256 * 1024 * 1024
"""Most bytes that one search goes through; the next one goes on where it ended."""

_DIGEST_SIZE = hashlib.sha256().digest_size
_NUMBER_SIZE = array("Q").itemsize


@frozen(kw_only=True)
class Part:
    """Whole lines of a console, and the style of the terminal where they begin."""

    content: bytes
    style: str = ""


@frozen
class ConsoleIndex:
    """The number of lines that end before each block of a console file, and the style of the terminal there."""

    size: int
    """Bytes of the file."""
    before: "array[int]"
    """Line ends before each block, and in the whole file as the last one."""
    digest: bytes
    """The SHA-256 of the file."""
    styles: Mapping[int, str]
    """How text looks that a block begins with, by the block's number, where it is not plain."""

    @staticmethod
    def of(path: Path) -> "ConsoleIndex":
        """Return the index of a file. Raises OSError."""
        indexer = ConsoleIndexer()
        with path.open("rb") as file:
            while data := file.read(BLOCK):
                indexer.add(data)
        return indexer.finish()

    @property
    def lines(self) -> int:
        """How many lines the file has."""
        return self.before[-1]

    def to_bytes(self) -> bytes:
        """Return it in a form that ``from_bytes`` reads."""
        return self.digest + array("Q", [self.size, *self.before]).tobytes() + json.dumps(self.styles).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the index that was kept. Raises ValueError."""
        size = int.from_bytes(data[_DIGEST_SIZE : _DIGEST_SIZE + _NUMBER_SIZE], sys.byteorder)
        end = _DIGEST_SIZE + (2 + -(-size // BLOCK)) * _NUMBER_SIZE
        numbers = array("Q")
        numbers.frombytes(data[_DIGEST_SIZE + _NUMBER_SIZE : end])
        if len(data) < end:
            raise ValueError("the index is cut off")
        styles = {int(block): style for block, style in json.loads(data[end:]).items()}
        return cls(size, numbers, data[:_DIGEST_SIZE], styles)

    def read(self, path: Path, *, first: int, count: int) -> Part:
        """Return lines of the file: ``count`` from the line ``first`` (from 1) on, fewer if they are long. Raises OSError."""
        block = max(0, bisect_left(self.before, first - 1) - 1)
        style = self.styles.get(block, "")
        missing = first - 1 - self.before[block]
        with path.open("rb") as file:
            file.seek(max(0, block * BLOCK - LONGEST))
            skipped = file.read(min(block * BLOCK, LONGEST))
            data = b""
            start = 0
            while missing > 0:  # the line ends before the first line that is wanted
                end = data.find(b"\n", start)
                if end < 0:
                    style = style_after(skipped + data, style)
                    skipped = data[-LONGEST:] or skipped
                    data, start = file.read(BLOCK), 0
                    if not data:
                        return Part(content=b"")
                    continue
                start, missing = end + 1, missing - 1
            style = style_after(skipped + data[:start], style)
            data = data[start:] + file.read(MAX_PART - len(data) + start)
        end = -1
        for _ in range(count):
            found = data.find(b"\n", end + 1)
            if found < 0:
                return Part(content=data, style=style)
            end = found
        return Part(content=data[: end + 1], style=style)


class ConsoleIndexer:
    """Makes the index of a console whose bytes pass, from the first one on."""

    def __init__(self) -> None:
        self._held = bytearray()  # less than a block
        self._before = array("Q")
        self._count = self._size = 0
        self._last = b""
        self._styles: dict[int, str] = {}
        self._style = ""
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(data)
        self._held += data
        while len(self._held) >= BLOCK:
            self._add_block(bytes(self._held[:BLOCK]))
            del self._held[:BLOCK]

    def _add_block(self, block: bytes) -> None:
        if self._style:
            self._styles[len(self._before)] = self._style
        self._before.append(self._count)
        self._count += block.count(b"\n")
        self._size += len(block)
        self._style = style_after(self._last + block, self._style)
        self._last = block[-LONGEST:]  # a sequence may go on in the next block

    def finish(self) -> ConsoleIndex:
        """Return the index of all that passed."""
        if self._held:
            self._add_block(bytes(self._held))
        self._before.append(self._count + (self._last[-1:] not in (b"", b"\n")))
        return ConsoleIndex(self._size, self._before, self._digest.digest(), self._styles)


@frozen(kw_only=True)
class Match:
    """A line that holds what was searched for."""

    number: int
    content: bytes
    style: str
    """That of the terminal where the line begins."""


def search(path: Path, index: ConsoleIndex, query: bytes, *, first: int, count: int) -> tuple[list[Match], int | None]:
    """Return lines that hold a text in any case, and the line to go on with if there may be more. Raises OSError."""
    pattern = re.compile(re.escape(query), re.IGNORECASE)
    found: list[Match] = []
    number, searched = first, 0
    while number <= index.lines:
        read = index.read(path, first=number, count=100_000)
        part, style = read.content, read.style
        if not part:
            break
        begin = styled = 0
        while match := pattern.search(part, begin):
            start = part.rfind(b"\n", 0, match.start()) + 1
            end = part.find(b"\n", match.end())
            end = len(part) if end < 0 else end
            line = number + part.count(b"\n", 0, start)
            if len(found) == count:
                return found, line
            style, styled = style_after(part[styled:start], style), start
            found.append(Match(number=line, content=part[start:end], style=style))
            begin = end + 1
            if begin >= len(part):
                break
        ended = part.count(b"\n")
        number += ended or 1  # a line longer than a part: its rest is not searched
        searched += len(part)
        if searched >= MAX_SEARCHED and number <= index.lines:
            return found, number
    return found, None
