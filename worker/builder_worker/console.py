"""The console of a job, cut into the lines that travel. Bytes in, lines out, no I/O."""

import codecs
from collections.abc import Sequence

from attrs import field, frozen

from builder.model import raw

MAX_LINE = 64 * 1024
"""Bytes of the longest line that is sent in one piece: a job that never writes a newline costs no more memory."""

PREFIX = "builder-worker: "
"""How a line begins that the worker has to say itself."""


class Part(bytes):
    """A part of a line: the next one continues it. Where there are only lines, it is one of its own."""

    __slots__ = ()


class End(bytes):
    """The end of a line all of which has been sent before: nothing, where there are only lines."""

    __slots__ = ()


@frozen(kw_only=True)
class Progress:
    """How far a job's console has been cut: up to the byte at ``offset``, with ``is_begun`` within a line, and ``is_over``
    when there will be no more of it.

    What was cut last had come at ``time``, in nanoseconds of the monotonic clock.
    """

    offset: int
    is_begun: bool
    is_over: bool = False
    time: int = field(default=0, eq=False)

    def after(self, lines: Sequence[bytes], time: int) -> "Progress":
        """Return how far it is with more lines, at least one."""
        parts = list(map(type, lines)).count(Part)
        return Progress(
            offset=self.offset + sum(map(len, lines)) + len(lines) - parts,
            is_begun=isinstance(lines[-1], Part),
            time=max(self.time, time),
        )


START = Progress(offset=0, is_begun=False)
"""Before the first line."""


class LineCutter:
    """Cuts bytes at newlines, as they come. The bytes are not altered; a longer line comes in parts of MAX_LINE.

    No part ends within a character of UTF-8.
    """

    def __init__(self, progress: Progress = START) -> None:
        self._rest = bytearray()
        self._is_begun = progress.is_begun  # whether a part of this line was given out

    @property
    def has_part(self) -> bool:
        """Whether there is a line that is not complete."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that these bytes complete, without their newlines."""
        self._rest += data
        if b"\n" not in data and len(self._rest) <= MAX_LINE:
            return []
        *complete, rest = bytes(self._rest).split(b"\n")
        lines = [piece for line in complete for piece in _pieces(line)]
        if complete and self._is_begun and not complete[0]:
            lines[0] = End()
        *cut, rest = _pieces(rest)
        self._rest = bytearray(rest)
        self._is_begun = bool(cut) or (self._is_begun and not complete)
        return lines + list(map(Part, cut))

    def part(self) -> list[bytes]:
        """Return the beginning of the line that is not complete, as far as it came: at most one.

        A character that is not complete stays, unless it is all there is: it may be none.
        """
        rest = self._take()
        whole = _whole(rest)
        if whole:
            self._rest += rest[whole:]
            rest = rest[:whole]
        self._is_begun = self._is_begun or bool(rest)
        return [Part(rest)] if rest else []

    def finish(self) -> list[bytes]:
        """Return the last line if it has no newline: at most one."""
        rest = self._take()
        return [rest] if rest else [End()] if self._is_begun else []

    def _take(self) -> bytes:
        rest, self._rest = bytes(self._rest), bytearray()
        return rest


def _pieces(line: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    start = 0
    while len(line) - start > MAX_LINE:
        part = line[start : start + MAX_LINE]
        pieces.append(Part(part[: _whole(part)]))
        start += len(pieces[-1])
    return [*pieces, line[start:]]


def _whole(data: bytes) -> int:
    """Return the length up to a character of UTF-8 at the end that is not complete: at most 3 bytes less than all."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    decoder.decode(data[-3:])
    incomplete, _ = decoder.getstate()
    return len(data) - len(incomplete)


def only_lines(lines: Sequence[bytes]) -> list[bytes]:
    """Return what is told where there are only lines."""
    return [line for line in lines if type(line) is not End]


def as_bytes(lines: Sequence[bytes]) -> bytes:
    """Return what was cut, but with a newline at the very end."""
    return b"".join(line if isinstance(line, Part) else line + b"\n" for line in lines)


def remark(message: str) -> bytes:
    """Return the line with which the worker says something in a console. ``message`` must be printable."""
    return raw(PREFIX + message)
