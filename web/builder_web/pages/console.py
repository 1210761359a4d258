"""The console of a build as lines of HTML.

A line is ``SECONDS.mmms:text``, any bytes; one without the time goes on with the line before. Of what a terminal would do,
two things are done: colours and styles (SGR sequences) become the classes of the style sheet, and of a line that was
written over with carriage returns the last state is shown. All other sequences and control characters are left out.
"""

import re

from attrs import frozen
from markupsafe import escape

MAX_LINE = 8192
"""Characters of a line that are shown; what follows is in the plain text. A screen of text, many times over."""

_STAMP = re.compile(r"(-?)([0-9]{1,9})\.([0-9]{3})s:")
# A sequence that is cut off at the end of the line is one as well, so that no half of it is taken for text
_SEQUENCE = re.compile(
    r"\x1b\[([0-9;:]*)m"  # SGR: the only one that counts
    r"|\x1b\[[\x20-\x3f]*[\x40-\x7e]?"  # other control sequences: the cursor, clearing
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links of a terminal
    r"|\x1b[\x20-\x2f]*[\x30-\x7e]?"
)
_PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # they would show a line in another order

_STYLES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 9: "strike"}
_ENDED = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 29: ("strike",)}
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
    lines = data.decode("utf-8", "replace").split("\n")
    if not lines[-1]:
        del lines[-1]
    painter = _Painter()
    return tuple([_to_line(line, number, painter) for number, line in enumerate(lines, first)])


def _to_line(line: str, number: int, painter: "_Painter") -> ConsoleLine:
    time, folded = "", 0
    if stamp := _STAMP.match(line):
        time, line = _time(*stamp.groups()), line[stamp.end() :]
    if "\r" in line:
        states = [state for state in line.split("\r") if state]
        line, folded = states[-1] if states else "", max(0, len(states) - 1)
    if len(line) > MAX_LINE:
        line = f"{line[:MAX_LINE]} … {len(line) - MAX_LINE} more characters"
    html = str(escape(line)) if not painter.classes and _PLAIN.fullmatch(line) else painter.paint(line)
    return ConsoleLine(number=number, time=time, html=html, folded=folded)


def _time(sign: str, seconds: str, milliseconds: str) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes}:{rest:02}.{milliseconds}"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}:{minutes:02}:{rest:02}.{milliseconds}"


class _Painter:
    """Knows the colours and styles that are set, from one line to the next, as a terminal does."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        """What is set, each by its kind: a foreground, a background, a style."""

    def paint(self, line: str) -> str:
        """Return the HTML of a line."""
        parts = []
        position = 0
        for sequence in _SEQUENCE.finditer(line):
            parts.append(self._span(line[position : sequence.start()]))
            position = sequence.end()
            if sequence[1] is not None:
                self._set(sequence[1])
        parts.append(self._span(line[position:]))
        return "".join(parts)

    def _span(self, text: str) -> str:
        text = _DIRECTIONS.sub(lambda match: f"\\u{ord(match[0]):04x}", _CONTROLS.sub("", text))
        if not text:
            return ""
        if not self.classes:
            return str(escape(text))
        return f'<span class="{" ".join(self.classes.values())}">{escape(text)}</span>'

    def _set(self, parameters: str) -> None:
        codes = iter([int(code or 0) for code in parameters.replace(":", ";").split(";")][:32])
        for code in codes:
            if code == 0:
                self.classes.clear()
            elif code in _STYLES:
                self.classes[_STYLES[code]] = _STYLES[code]
            elif code == 7:
                self.classes["inverse"] = "inverse"
            elif code == 27:
                self.classes.pop("inverse", None)
            elif code in _ENDED:
                for style in _ENDED[code]:
                    self.classes.pop(style, None)
            elif code in {38, 48}:
                colour = _extended(list(codes))
                if colour is not None:
                    self._colour("fg" if code == 38 else "bg", colour)
                break  # what would follow it in one sequence is rare enough
            elif code in {39, 49}:
                self.classes.pop("fg" if code == 39 else "bg", None)
            elif 30 <= code <= 37 or 40 <= code <= 47:
                self._colour("fg" if code < 40 else "bg", code % 10)
            elif 90 <= code <= 97 or 100 <= code <= 107:
                self._colour("fg" if code < 100 else "bg", code % 10 + 8)

    def _colour(self, kind: str, colour: int) -> None:
        self.classes[kind] = f"{kind}{colour}"


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
