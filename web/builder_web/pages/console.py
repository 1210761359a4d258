"""The console of a build as lines of HTML.

A line is ``SECONDS.mmms:text``, any bytes; one without the time goes on with the line before. Of what a terminal would do,
two things are done: colours and styles (SGR sequences) become the classes of the style sheet, and of a line that was
written over with carriage returns the last state is shown. All other sequences and control characters are left out.
"""

import re
from functools import lru_cache

from attrs import frozen
from markupsafe import escape

MAX_LINE = 8192
"""Characters of a line that are shown: a screen full of text, many times over. The plain text has the others."""

_STAMP = re.compile(r"(-?)([0-9]{1,9})\.([0-9]{3})s:")
_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
# A sequence that is cut off at the end of its line is one as well, so that no half of it is taken for text
_OTHERS = re.compile(
    r"\x1b(?!\[[0-9;:]*m)"
    r"(?:\[[\x20-\x3f]*[\x40-\x7e]?"  # other control sequences: the cursor, clearing
    r"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # titles and links of a terminal
    r"|[\x20-\x2f]*[\x30-\x7e]?)"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]+")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # they would show a line in another order
_BROKEN = re.compile(r"(?:&[^;]{0,5}|\x1b[^m]{0,64})$")  # what a cut may leave at the end

_STYLES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_ENDED = {
    22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",), 39: ("fg",), 49: ("bg",)
}  # fmt: skip
_LEVELS = (0, 95, 135, 175, 215, 255)  # of the cube of 216 colours


@frozen(kw_only=True, slots=True)
class ConsoleLine:
    """A line as it is shown."""

    number: int
    """From 1."""
    time: str
    """Since the start of the build, such as "1:01.002"; empty where the line has none."""
    html: str
    """The text, escaped, with spans whose classes are colours and styles."""
    folded: int = 0
    """How many earlier states of the line were written over."""


def to_lines(data: bytes, *, first: int) -> tuple[ConsoleLine, ...]:
    """Return the lines of a part of a console that begins with the line ``first`` and ends with a whole line."""
    # What can be done to the whole part at once is: it is many times quicker than line by line
    text = str(escape(data.decode("utf-8", "replace")))
    text = _CONTROLS.sub("", _OTHERS.sub("", text) if "\x1b" in text else text)
    lines = _DIRECTIONS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).split("\n")
    if not lines[-1]:
        del lines[-1]
    result = []
    style = ""  # goes on from one line to the next, as on a terminal
    for number, line in enumerate(lines, first):
        stamp = _STAMP.match(line)
        shown = line[stamp.end() :] if stamp else line
        folded = 0
        if "\r" in shown:
            states = [state for state in shown.split("\r") if state]
            shown, folded = states[-1] if states else "", max(0, len(states) - 1)
        if len(shown) > MAX_LINE:
            shown = _BROKEN.sub("", shown[:MAX_LINE]) + " … the line goes on"
        if style or "\x1b" in shown:
            shown, style = _paint(shown, style)
        time = _time(*stamp.groups()) if stamp else ""
        result.append(ConsoleLine(number=number, time=time, html=shown, folded=folded))
    return tuple(result)


def _paint(line: str, style: str) -> tuple[str, str]:
    """Return the HTML of a line that begins in a style, and the style after it: classes with spaces between."""
    parts = []
    pieces = iter(_SGR.split(line))
    for text in pieces:
        if text:
            parts.append(f'<span class="{style}">{text}</span>' if style else text)
        if (parameters := next(pieces, None)) is not None:
            style = _next_style(style, parameters[:64])
    return "".join(parts), style


def _time(sign: str, seconds: str, milliseconds: str) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes}:{rest:02}.{milliseconds}"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}:{minutes:02}:{rest:02}.{milliseconds}"


@lru_cache(maxsize=1024)  # a console has a few of them, thousands of times
def _next_style(style: str, parameters: str) -> str:
    """Return the style after an SGR sequence: at most one foreground, one background, and each other class once."""
    classes = {_kind(name): name for name in style.split()}
    codes = iter([int(code or 0) for code in parameters.replace(":", ";").split(";")])
    for code in codes:
        if code == 0:
            classes.clear()
        elif code in _STYLES:
            classes[_STYLES[code]] = _STYLES[code]
        elif code in _ENDED:
            for name in _ENDED[code]:
                classes.pop(name, None)
        elif code in {38, 48}:
            colour = _extended(list(codes))  # what would follow it in one sequence is rare enough
            if colour is not None:
                classes["fg" if code == 38 else "bg"] = f"{'fg' if code == 38 else 'bg'}{colour}"
        elif 30 <= code <= 37 or 90 <= code <= 97:
            classes["fg"] = f"fg{code % 10 + 8 * (code >= 90)}"
        elif 40 <= code <= 47 or 100 <= code <= 107:
            classes["bg"] = f"bg{code % 10 + 8 * (code >= 100)}"
    return " ".join(classes.values())


def _kind(name: str) -> str:
    return name[:2] if name[:2] in {"fg", "bg"} else name


def _extended(values: list[int]) -> int | None:
    """Return which of the 16 colours is nearest to one of 256, or to one of red, green and blue.

    The 16 are the style sheet's own, so that each can be read on a light and on a dark page.
    """
    match values:
        case [5, colour, *_]:
            if colour < 16:
                return colour
            if colour >= 232:
                grey = 8 + (colour - 232) * 10
                return _nearest(grey, grey, grey)
            index = min(colour, 231) - 16
            return _nearest(_LEVELS[index // 36], _LEVELS[index // 6 % 6], _LEVELS[index % 6])
        case [2, red, green, blue, *_]:
            return _nearest(red, green, blue)
    return None


def _nearest(red: int, green: int, blue: int) -> int:
    strongest, weakest = max(red, green, blue), min(red, green, blue)
    if strongest - weakest < 48:  # hardly any colour: black, two greys, white
        return 0 if strongest < 64 else 8 if strongest < 144 else 7 if strongest < 216 else 15
    middle = (strongest + weakest) / 2
    colour = (red > middle) + 2 * (green > middle) + 4 * (blue > middle)
    return colour + 8 if strongest > 216 else colour
