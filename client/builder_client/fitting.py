"""Tables that fit a width, for terminals: cells are said briefly, columns left out, texts shortened. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from os.path import commonprefix

from attrs import evolve, frozen

GAP = 2
"""Spaces between two columns of a table."""

_LEAST = 24
"""Cells to which a column is shortened before a spare one is left out."""

_ELLIPSIS = "…"

_HEADS = (0.5, 0.75, 0.25, 1.0, 0.0)
"""How much of a shortened text is its begin, the rest being its end, in the order of preference."""


@frozen
class Column:
    """A column of a table, and how it gives way on a terminal too narrow for all.

    Its cells are said as ``brief`` does; then it is left out if it is ``spare``, the most spare one first; then its cells
    are shortened, unless it is ``rigid``.
    """

    title: str
    rigid: bool = False
    spare: int = 0
    brief: Callable[[str], str] | None = None


@frozen
class Filled:
    """A column with its cells, and how many cells of a terminal it takes."""

    column: Column
    title: str
    texts: tuple[str, ...]
    width: int

    @property
    def least(self) -> int:
        """What it takes at least, if there is any choice."""
        return self.width if self.column.rigid else min(self.width, _LEAST)

    def pad(self, text: str) -> str:
        """Return a text as wide as the column."""
        return text + " " * (self.width - width_of(text))


def width_of(text: str) -> int:
    """Return the cells of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fill(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Filled]:
    """Return columns as wide as what is in them."""
    return [_filled(column, [row[place] for row in rows]) for place, column in enumerate(columns)]


def fit(filled: Sequence[Filled], width: int) -> list[Filled]:
    """Return the columns so that they take no more than ``width`` cells together, as far as that is possible."""
    found = [*filled]
    if _total([each.width for each in found]) <= width:
        return found
    found = [_briefly(each) for each in found if any(each.texts)]
    while _total([each.least for each in found]) > width and any(each.column.spare for each in found):
        found.remove(max(found, key=lambda each: each.column.spare))
    rigid = sum(each.width for each in found if each.column.rigid)
    room = width - rigid - GAP * (len(found) - 1)
    shares = iter(share([each.width for each in found if not each.column.rigid], room))
    return [each if each.column.rigid else _shortened(each, max(1, next(shares))) for each in found]


def share(needs: Sequence[int], room: int) -> list[int]:
    """Divide room among those who need some: nobody gets more, and who needs most gives way first."""
    shares = [0] * len(needs)
    left = sorted(range(len(needs)), key=lambda place: needs[place])
    for number, place in enumerate(left):
        shares[place] = max(0, min(needs[place], -(-room // (len(left) - number))))
        room -= shares[place]
    return shares


def shorten(texts: Sequence[str], width: int) -> list[str]:
    """Return the texts in ``width`` cells, with an ellipsis where one was cut: at a place that tells it from all others.

    Where there is none, it is cut in its middle.
    """
    found = {text: text for text in texts if width_of(text) <= width}
    long = {*texts} - found.keys()
    middle = {text: _ends(text, width, 0.5) for text in long}
    for head in _HEADS:
        short = {text: _ends(text, width, head) for text in long}
        seen = Counter([*found, *short.values()])
        found |= {text: short[text] for text in long - found.keys() if seen[short[text]] == 1}
    for text in long - found.keys():
        alike = [other for other in long if middle[other] == middle[text]]
        same = len(commonprefix(alike))  # noqa: RUF071  they are no paths
        found[text] = _around(text, width, same) if len(alike) > 1 else middle[text]
    return [found[text] for text in texts]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _filled(column: Column, texts: Sequence[str]) -> Filled:
    return Filled(column, column.title, tuple(texts), max(map(width_of, (column.title, *texts))))


def _briefly(filled: Filled) -> Filled:
    brief = filled.column.brief
    return filled if brief is None else _filled(filled.column, [*map(brief, filled.texts)])


def _shortened(filled: Filled, width: int) -> Filled:
    if filled.width <= width:
        return filled
    (title,) = shorten([filled.title], width)
    return evolve(filled, title=title, texts=tuple(shorten(filled.texts, width)), width=width)


def _ends(text: str, width: int, head: float) -> str:
    """Return the begin and the end of a text, the former being that part of what is shown."""
    cells = width - 1
    begin = _begin(text, int(cells * head))
    return begin + _ELLIPSIS + _begin(text[::-1], cells - width_of(begin))[::-1]


def _around(text: str, width: int, place: int) -> str:
    """Return the begin of a text, and what stands at a place."""
    begin = _begin(text, width // 3)
    rest = _begin(text[place:], width - width_of(begin) - 2)
    return _begin(begin + _ELLIPSIS + rest + _ELLIPSIS, width)


def _begin(text: str, cells: int) -> str:
    if text.isascii():
        return text[: max(0, cells)]
    size = 0
    for number, char in enumerate(text):
        size += width_of(char)
        if size > cells:
            return text[:number]
    return text
