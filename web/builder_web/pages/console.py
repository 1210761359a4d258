"""The console of a build as lines of HTML.

A line is ``SECONDS.mmms:text``, any bytes; one without the time goes on with the line before. Of what a terminal would do,
two things are done: colours and styles (SGR sequences) become the classes of the style sheet, and of a line that was
written over with carriage returns the last state is shown. All other sequences and control characters are left out.
"""

import re

from attrs import frozen
from markupsafe import escape

from builder_web.terminal import SEQUENCE, next_style, style_after

MAX_LINE = 8192
"""Characters of a line that are shown: a screen full of text, many times over. The plain text has the others."""

_STAMP = re.compile(r"(-?)([0-9]{1,9})\.([0-9]{3})s:")
_SGR = re.compile(SEQUENCE)
# A sequence that is cut off at the end of its line is one as well, so that no half of it is taken for text
_OTHERS = re.compile(
    rf"(?!{SEQUENCE})\x1b"
    r"(?:\[[\x20-\x3f]*[\x40-\x7e]?"  # other control sequences: the cursor, clearing
    r"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # titles and links of a terminal
    r"|[\x20-\x2f]*[\x30-\x7e]?)"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]+")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # they would show a line in another order
_BROKEN = re.compile(r"(?:&[^;]{0,5}|\x1b[^m]{0,64})$")  # what a cut may leave at the end


@frozen(kw_only=True, slots=True)
class ShownLine:
    """A line as it is shown."""

    number: int
    """From 1."""
    time: str
    """Since the start of the build, such as "1:01.002"; empty where the line has none."""
    html: str
    """The text, escaped, with spans whose classes are colours and styles."""
    folded: int = 0
    """How many earlier states of the line were written over."""


def to_lines(data: bytes, *, first: int, style: str = "") -> tuple[ShownLine, ...]:
    """Return the lines of a part of a console that begins with the line ``first`` and ends with a whole line.

    ``style`` is that of the terminal before this part.
    """
    # What can be done to the whole part at once is: it is many times quicker than line by line
    text = str(escape(data.decode("utf-8", "replace")))
    text = _CONTROLS.sub("", _OTHERS.sub("", text) if "\x1b" in text else text)
    lines = _DIRECTIONS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).split("\n")
    if not data or data.endswith(b"\n"):
        del lines[-1]
    result = []
    for number, line in enumerate(lines, first):
        stamp = _STAMP.match(line)
        shown = line[stamp.end() :] if stamp else line
        folded, begins_in = 0, style
        if style or "\x1b" in shown:
            style = _style_after(line, style)
        if "\r" in shown:
            states = [state for state in shown.split("\r") if state] or [""]
            folded = len(states) - 1
            begins_in = _style_after("".join(states[:-1]), begins_in)
            shown = states[-1]
        if len(shown) > MAX_LINE:
            shown = _BROKEN.sub("", shown[:MAX_LINE]) + " … the line goes on"
        if begins_in or "\x1b" in shown:
            shown = _paint(shown, begins_in)
        time = _time(*stamp.groups()) if stamp else ""
        result.append(ShownLine(number=number, time=time, html=shown, folded=folded))
    return tuple(result)


def _style_after(line: str, style: str) -> str:
    return style_after(line.encode(), style)


def _paint(line: str, style: str) -> str:
    """Return the HTML of a line that begins in a style."""
    parts = []
    pieces = iter(_SGR.split(line))
    for text in pieces:
        if text:
            parts.append(f'<span class="{style}">{text}</span>' if style else text)
        if (parameters := next(pieces, None)) is not None:
            style = next_style(style, parameters)
    return "".join(parts)


def _time(sign: str, seconds: str, milliseconds: str) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes}:{rest:02}.{milliseconds}"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}:{minutes:02}:{rest:02}.{milliseconds}"
