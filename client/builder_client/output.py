"""Everything that is printed goes through a Printer: to a terminal safely, to a pipe or a file exactly.

On a terminal, text from outside loses its control characters, tables are fitted to the width (where what may be folded
suffices for that), and headings are bold. Elsewhere bytes are not altered, tables are as wide as their content, and there is no escape sequence.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from attrs import frozen

from builder.errors import BuilderError, NobodyReads
from builder.model import printable, raw

_NO_WRAP = 10_000_000
"""Columns of a table that is not for a terminal: wider than any row can be."""

_NARROWEST = 8
"""Columns of a terminal that a folded cell has at least."""

_GAP = 2
"""Spaces between two columns of a table."""

_FIRST_COLOUR, _COLOURS = 31, 6
"""Codes of the colours from red to cyan."""

_TITLE, _HEADING = "1", "1;36"
"""Codes of bold, and bold and cyan, which are "bold cyan" below."""


@frozen
class Column:
    """A column of a table, and how it gives way on a terminal too narrow for all.

    Its cells are folded, unless it is ``rigid``; it is left out first if it is ``spare``, for what others tell too.
    """

    title: str
    rigid: bool = False
    spare: bool = False


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

    def table(self, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Write a titled table, or ``empty`` in its place; cells have gone through ``printable``."""
        if not rows:
            self.line(f"{title}: {empty}")
            return
        from rich.cells import cell_len, set_cell_size

        width = shutil.get_terminal_size().columns if self.is_terminal else _NO_WRAP
        cells = [(column, [column.title, *(row[index] for row in rows)]) for index, column in enumerate(columns)]
        widths = {column: max(map(cell_len, texts)) for column, texts in cells}
        if sum(widths.values()) + _GAP * (len(columns) - 1) > width:
            cells = [(column, texts) for column, texts in cells if not column.spare]
        self.line(self._style(title, _TITLE))
        if sum(widths[column] for column, _ in cells) + _GAP * (len(cells) - 1) > width:
            self._folded(cells, widths, width)
            return
        padded = [[set_cell_size(text, widths[column]) for text in texts] for column, texts in cells]
        heading, *lines = ((" " * _GAP).join(row).rstrip() for row in zip(*padded, strict=True))
        self.line(self._style(heading, _HEADING))
        for line in lines:
            self.line(line)

    def coloured(self, text: str, number: int) -> str:
        """Return text in one of six colours, where there are any."""
        return self._style(text, f"{_FIRST_COLOUR + number % _COLOURS}")

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._styled else text

    def _folded(self, cells: Sequence[tuple[Column, list[str]]], widths: Mapping[Column, int], width: int) -> None:
        """Write a table that is too wide as it is."""
        # 40 ms that only such tables need
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        text = io.StringIO()
        console = Console(
            file=text,
            width=width,
            height=25,  # unused, but the width counts only together with a height
            force_terminal=self._styled,
            color_system="standard" if self._styled else None,
            no_color=False,  # NO_COLOR is in _styled already
            legacy_windows=False,
            highlight=False,
        )
        table = Table(
            box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold cyan" if self._styled else ""
        )
        for column, _ in cells:
            table.add_column(
                Text(column.title),
                overflow="fold",
                no_wrap=column.rigid,
                min_width=widths[column] if column.rigid else min(widths[column], _NARROWEST),
            )
        for row in list(zip(*(texts for _, texts in cells), strict=True))[1:]:
            table.add_row(*map(Text, row))
        console.print(table, crop=False)
        for line in text.getvalue().removesuffix("\n").split("\n"):
            self.line(line.rstrip())


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
