"""How the contents of two files differ: lines of text, or the first byte and the ELF sections of binaries."""

from pathlib import Path
from typing import BinaryIO

from builder.sizes import format_size
from builder_web.binaries.differences import different_sections, first_difference
from builder_web.binaries.elf import Damaged
from builder_web.differences import unified
from builder_web.pages.parts import FileDifference, NamedChange

MAX_TEXT = 256 * 1024
"""Bytes of a file up to which its lines are compared."""

MAX_LINES = 400
"""Lines of a difference that are shown."""

_MAX_SECTIONS = 50


def contrast(left: Path, right: Path) -> FileDifference:
    """Return how two files differ. Raises OSError."""
    with left.open("rb") as one, right.open("rb") as other:
        texts = _text(one), _text(other)
        if texts[0] is not None and texts[1] is not None:
            sides = [text.split("\n") for text in texts if text is not None]
            if all(lines[-1] == "" for lines in sides):  # both end with a whole line
                sides = [lines[:-1] for lines in sides]
            lines = unified(*sides, left_name="", right_name="")[2:]
            return FileDifference(diff="\n".join(lines[:MAX_LINES]), cut=len(lines) > MAX_LINES)
        return FileDifference(first_byte=first_difference(one, other), sections=_sections(one, other))


def _text(file: BinaryIO) -> str | None:
    """Return a file as text, None if it is none or too long."""
    file.seek(0)
    data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _sections(one: BinaryIO, other: BinaryIO) -> tuple[NamedChange, ...]:
    found = different_sections(one, other)
    if found is None or isinstance(found, Damaged):
        return ()
    return tuple(
        NamedChange(name=each.name, left=_size(each.left), right=_size(each.right)) for each in found[:_MAX_SECTIONS]
    )


def _size(size: int | None) -> str:
    return "none" if size is None else format_size(size)
