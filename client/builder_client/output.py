"""Everything that is printed goes through a Printer: to a terminal safely, to a pipe or a file exactly.

On a terminal, text from outside loses its control characters, tables are fitted to the width, and headings are bold.
Elsewhere bytes are not altered, tables are as wide as their content, and there is no escape sequence.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from builder.errors import BuilderError, NobodyReads
from builder.model import printable, raw

from .fitting import GAP, Column, fill, fit

_FIRST_COLOUR, _COLOURS = 31, 6
"""Codes of the colours from red to cyan."""

_LINES = 24
"""Lines of a terminal, where there is none to be asked."""

_TITLE, _HEADING = "1", "1;36"
"""Codes of bold, and of bold and cyan."""


def json_text(value: str | bytes) -> str:
    """Return text of the wire for JSON: bytes that are not UTF-8 become U+FFFD."""
    return (raw(value) if isinstance(value, str) else value).decode("utf-8", "replace")


def json_bytes(key: str, data: bytes) -> dict[str, str]:
    """Return ``{key: text}``, and beside it ``key_base64`` where the bytes are not UTF-8, so that nothing is lost."""
    value = {key: json_text(data)}
    try:
        data.decode()
    except UnicodeDecodeError:
        import base64

        value[f"{key}_base64"] = base64.b64encode(data).decode("ascii")
    return value


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON in ASCII, so that it is safe on any terminal and in any encoding."""
    return json.dumps(value, indent=indent, ensure_ascii=True)


class Printer:
    """Writes to a binary stream; ``color`` is "auto" (a terminal without NO_COLOR), "always" or "never"."""

    def __init__(self, stream: BinaryIO, *, color: str, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()
        plain = not self.is_terminal or environ.get("NO_COLOR") or environ.get("TERM", "dumb") in ("dumb", "unknown")
        self._styled = color == "always" or (color == "auto" and not plain)

    def write(self, data: bytes) -> None:
        """Write bytes as they are. All that is written goes through here; raises NobodyReads."""
        try:
            self._stream.write(data)
        except BrokenPipeError as error:
            raise NobodyReads from error

    def flush(self) -> None:
        """Hand everything to the terminal, pipe or file."""
        try:
            self._stream.flush()
        except BrokenPipeError as error:
            raise NobodyReads from error

    def line(self, text: str) -> None:
        """Write a line of our own words; what it quotes from outside has gone through ``printable``."""
        self.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def json(self, value: object, *, indent: int | None = None) -> None:
        """Write a value as JSON, by default on one line."""
        self.line(to_json(value, indent=indent))

    def foreign(self, data: bytes) -> bytes:
        """Return bytes from outside as they may be written here: exactly, or escaped but for tabs on a terminal."""
        if not self.is_terminal:
            return data
        return b"\t".join(printable(part).encode("utf-8", "backslashreplace") for part in data.split(b"\t"))

    def foreign_line(self, prefix: str, data: bytes) -> None:
        """Write ``prefix`` and a line from outside."""
        self.write(prefix.encode("utf-8", "backslashreplace") + self.foreign(data) + b"\n")

    @property
    def height(self) -> int:
        """Lines that are seen at once; elsewhere those of the usual terminal."""
        return shutil.get_terminal_size().lines if self.is_terminal else _LINES

    def table(
        self,
        title: str,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str]],
        *,
        empty: str,
        limit: int | None = None,
    ) -> None:
        """Write a titled table, or ``empty`` in its place; cells have gone through ``printable``.

        With ``limit`` it has no more rows than that, and says of how many.
        """
        if not rows:
            self.line(f"{title}: {empty}")
            return
        if limit is not None and limit < len(rows):
            title, rows = f"{title} ({limit} of {len(rows)})", rows[:limit]
        filled = fill(columns, rows)
        if self.is_terminal:
            filled = fit(filled, shutil.get_terminal_size().columns)
        self.line(self._style(title, _TITLE))
        self.line(self._style(_row([each.pad(each.title) for each in filled]), _HEADING))
        for row in zip(*([each.pad(text) for text in each.texts] for each in filled), strict=True):
            self.line(_row(row))

    def coloured(self, text: str, number: int) -> str:
        """Return text in one of six colours, where there are any."""
        return self._style(text, f"{_FIRST_COLOUR + number % _COLOURS}")

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._styled else text


def _row(cells: Iterable[str]) -> str:
    return (" " * GAP).join(cells).rstrip()


def print_done(done: str, *, as_json: bool, **values: object) -> None:
    """Say in JSON what a command that has nothing to show has done; people are told nothing where all is well."""
    if as_json:
        found = {key: json_text(value) if isinstance(value, str) else value for key, value in values.items()}
        standard_output().json({"done": done} | found)


def standard_output(color: str = "auto") -> Printer:
    """Return the printer of this process."""
    if sys.stdout is None:  # the program was started with it closed
        raise BuilderError("standard output is closed")
    return Printer(sys.stdout.buffer, color=color, environ=os.environ)


def note(text: str) -> None:
    """Tell the person something that is no data: on standard error."""
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


JsonObject = dict[str, Any]
