"""How wide text is, before anything draws it."""

import unicodedata

from builder.model import printable

# Widths of " " to "~" in thousandths of the font's size, in DejaVu Sans, than which hardly any sans-serif is wider
_WIDTHS = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787,
    603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352, 635,
    634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
)  # fmt: skip
_WIDE, _OTHER = 1000, 700
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_FEWEST = 5  # characters of a text that is cut; fewer say nothing


def width(text: str, size: float) -> float:
    """Return the width of text, in the unit of ``size``, the height of the font."""
    return sum(map(_width, text)) * size / 1000


def fitted(text: str, size: float, room: float) -> str:
    """Return the text as it is drawn, cut with an ellipsis to fit into the room; empty where nothing useful fits."""
    shown = printable(text[:1000])
    if width(shown, size) <= room:
        return shown
    left = room * 1000 / size - _width(_ELLIPSIS)
    for count, char in enumerate(shown):
        left -= _width(char)
        if left < 0:
            return shown[:count].rstrip() + _ELLIPSIS if count >= _FEWEST else ""
    return shown


def cut(text: str, length: int) -> str:
    """Return the text as it is drawn, with at most ``length`` characters."""
    shown = printable(text[: length + 1])
    return shown if len(shown) <= length else shown[: length - 1] + _ELLIPSIS


def _width(char: str) -> int:
    if " " <= char <= "~":
        return _WIDTHS[ord(char) - 32]
    if unicodedata.combining(char):
        return 0
    return _WIDE if char == _ELLIPSIS or unicodedata.east_asian_width(char) in "WF" else _OTHER
