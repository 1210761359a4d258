"""The console of a job, cut into the lines that travel. Bytes in, lines out, no I/O."""

from builder.model import raw

MAX_LINE = 64 * 1024
"""Bytes of the longest line that is sent in one piece: a job that never writes a newline costs no more memory."""

PREFIX = "builder-worker: "
"""How a line begins that the worker has to say itself."""


class LineCutter:
    """Cuts bytes at newlines, as they come. The bytes are not altered; a longer line comes in pieces of MAX_LINE."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that these bytes complete, without their newlines."""
        self._rest += data
        if b"\n" not in data and len(self._rest) <= MAX_LINE:
            return []
        *complete, rest = bytes(self._rest).split(b"\n")
        lines = [piece for line in complete for piece in _pieces(line)]
        *cut, rest = _pieces(rest)
        self._rest = bytearray(rest)
        return lines + cut

    def finish(self) -> list[bytes]:
        """Return the last line if it has no newline: at most one."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    if len(line) <= MAX_LINE:
        return [line]
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)]


def remark(message: str) -> bytes:
    """Return the line with which the worker says something in a console. ``message`` must be printable."""
    return raw(PREFIX + message)
