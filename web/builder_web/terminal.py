"""The colours and styles that control sequences (SGR) give to text on a terminal, as classes of the style sheet.

A style is a text with spaces between its classes: at most one foreground, one background, and each other class once.
"""

import re
from functools import lru_cache
from itertools import islice

LONGEST = 80
"""Bytes of a sequence at most: one that is longer is none, so that whoever reads parts of a console finds all of them."""

SEQUENCE = rf"\x1b\[([0-9;:]{{0,{LONGEST - 3}}})m"
"""A regular expression; its group is what ``next_style`` takes."""

_SEQUENCE = re.compile(SEQUENCE.encode())
_MOST = 1000  # different sequences that are heeded at once: of more, those before the last ones are forgotten

_STYLES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike"}
_ENDED = {
    22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",), 39: ("fg",), 49: ("bg",)
}  # fmt: skip
_LEVELS = (0, 95, 135, 175, 215, 255)  # of the cube of 216 colours


def style_after(data: bytes, style: str = "") -> str:
    """Return the style after some output that began in one."""
    if b"\x1b" not in data:
        return style
    reset = max(data.rfind(b"\x1b[m"), data.rfind(b"\x1b[0m"))
    # A sequence does the same wherever it stands, so of equal ones the last counts
    found = dict.fromkeys(reversed(_SEQUENCE.findall(data, max(reset, 0))))
    for parameters in reversed(list(islice(found, _MOST))):
        style = next_style(style, parameters.decode())
    return style


@lru_cache(maxsize=1024)  # a console has a few of them, thousands of times
def next_style(style: str, parameters: str) -> str:
    """Return the style after one sequence, by the numbers in it."""
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
