"""Where the lines of a console file begin, so that any part of it is found without reading the rest, and its SHA-256."""

import hashlib
import re
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import Self

from attrs import frozen

BLOCK = 256 * 1024
"""Bytes for which the index has one entry: 32 KB of index for a console of 1 GB."""

MAX_PART = 4 * 1024 * 1024
"""Most bytes of a part that is shown at once, however long its lines are."""

MAX_SEARCHED = 256 * 1024 * 1024
"""Most bytes that one search goes through; the next one goes on where it ended."""

_DIGEST_SIZE = hashlib.sha256().digest_size


@frozen
class ConsoleIndex:
    """The number of lines that end before each block of a console file."""

    size: int
    """Bytes of the file."""
    before: "array[int]"
    """Line ends before each block, and in the whole file as the last one."""
    digest: bytes
    """The SHA-256 of the file."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the index of a file. Raises OSError."""
        before, count, size, last = array("Q"), 0, 0, b""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(BLOCK):
                before.append(count)
                digest.update(data)
                count += data.count(b"\n")
                size += len(data)
                last = data[-1:]
        before.append(count + (last not in (b"", b"\n")))
        return cls(size, before, digest.digest())

    @property
    def lines(self) -> int:
        """How many lines the file has."""
        return self.before[-1]

    def to_bytes(self) -> bytes:
        """Return it in a form that ``from_bytes`` reads."""
        return self.digest + array("Q", [self.size, *self.before]).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the index that was kept. Raises ValueError."""
        numbers = array("Q")
        numbers.frombytes(data[_DIGEST_SIZE:])
        if len(numbers) < 2:
            raise ValueError("the index is cut off")
        return cls(numbers[0], numbers[1:], data[:_DIGEST_SIZE])

    def read(self, path: Path, *, first: int, count: int) -> bytes:
        """Return lines of the file: ``count`` from the line ``first`` (from 1) on, fewer if they are long. Raises OSError."""
        block = max(0, bisect_left(self.before, first - 1) - 1)
        with path.open("rb") as file:
            file.seek(block * BLOCK)
            missing = first - 1 - self.before[block]
            data = b""
            start = 0
            while missing > 0:  # the line ends before the first line that is wanted
                end = data.find(b"\n", start)
                if end < 0:
                    data, start = file.read(BLOCK), 0
                    if not data:
                        return b""
                    continue
                start, missing = end + 1, missing - 1
            data = data[start:] + file.read(MAX_PART - len(data) + start)
        end = -1
        for _ in range(count):
            found = data.find(b"\n", end + 1)
            if found < 0:
                return data
            end = found
        return data[: end + 1]


@frozen(kw_only=True)
class Match:
    """A line that holds what was searched for."""

    number: int
    content: bytes


def search(path: Path, index: ConsoleIndex, query: bytes, *, first: int, count: int) -> tuple[list[Match], int | None]:
    """Return lines that hold a text in any case, and the line to go on with if there may be more. Raises OSError."""
    pattern = re.compile(re.escape(query), re.IGNORECASE)
    found: list[Match] = []
    number, searched = first, 0
    while number <= index.lines:
        part = index.read(path, first=number, count=100_000)
        if not part:
            break
        begin = 0
        while match := pattern.search(part, begin):
            start = part.rfind(b"\n", 0, match.start()) + 1
            end = part.find(b"\n", match.end())
            end = len(part) if end < 0 else end
            line = number + part.count(b"\n", 0, start)
            if len(found) == count:
                return found, line
            found.append(Match(number=line, content=part[start:end]))
            begin = end + 1
            if begin >= len(part):
                break
        ended = part.count(b"\n")
        number += ended or 1  # a line longer than a part: its rest is not searched
        searched += len(part)
        if searched >= MAX_SEARCHED and number <= index.lines:
            return found, number
    return found, None
