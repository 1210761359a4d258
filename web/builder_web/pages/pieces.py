"""The pieces of which lists have thousands: times, hashes, rows of builds. What is rare is a macro in parts.html."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from builder.model import Instant
from builder_web.pages.console import ShownLine
from builder_web.pages.links import Links
from builder_web.pages.parts import Cell, CellState
from builder_web.pages.words import count, exact_time, harmless

_SHAPES = {
    CellState.SAME: "5h0",  # a disc
    CellState.NEW: "9.3m-4.3-4.3 4.3-4.3 4.3 4.3-4.3 4.3z",  # a diamond
    CellState.FAILED: "5m-2.6-2.6 5.2 5.2m0-5.2-5.2 5.2",  # a cross
}
"""Where the shape of each state begins, from above, and how it goes on."""


def time(moment: Instant) -> Markup:
    """Return a time: the script makes it relative, with the exact one on hover."""
    exact = exact_time(moment)
    return Markup(f'<time datetime="{exact[:10]}T{exact[11:]}">{exact}</time>')


def fingerprint(sha256: str) -> Markup:
    """Return four swatches for the first digits of a hash, so that equal ones are seen at once."""
    swatches = "".join([f'<i class="h{digit}"></i>' for digit in escape(sha256)[:4]])
    return Markup(f'<span class="print" aria-hidden="true">{swatches}</span>')


def hash_link(sha256: str, links: Links, *, whole: bool = False) -> Markup:
    """Return a hash, shortened to twelve digits; ``whole``: the others are there too, where they have room.

    The script adds a button that copies it.
    """
    sha256 = escape(sha256)
    rest = f'<span class="rest">{sha256[12:]}</span>' if whole else ""
    code = f"<code>{sha256[:12]}{rest}</code>"
    return Markup(f'<a class="hash" href="{links.hash(sha256)}">{fingerprint(sha256)}{code}</a>')


def row(platform: str, states: Sequence[CellState]) -> Markup:
    """Return the last builds as one small drawing."""
    drawn: dict[CellState, list[str]] = {}
    for index, state in enumerate(states):
        drawn.setdefault(state, []).append(f"M{index * 10 + 5} {_SHAPES[state]}")
    paths = "".join(
        [f'<path class="{state.value}" d="{"".join(drawn[state])}"/>' for state in _SHAPES if state in drawn]
    )
    width = len(states) * 10
    words = escape(harmless(row_words(platform, states)))
    return Markup(
        f'<svg class="row" viewBox="0 0 {width} 10" width="{width}" height="10" role="img" aria-label="{words}">{paths}</svg>'
    )


def row_words(platform: str, states: Sequence[CellState]) -> str:
    """Return what the row says, for those who don't see it."""
    numbers = ((states.count(state), words) for state, words in _WORDS)
    parts = [f"{number} {words}" for number, words in numbers if number]
    return f"Last {count(len(states), 'build')} on {platform}: {', '.join(parts)}"


def cell_words(cell: Cell) -> str:
    """Return what a cell of a row says."""
    return f"{exact_time(cell.started)}: {dict(_WORDS)[cell.state]}"


def console_lines(lines: Iterable[ShownLine], address: str | None) -> Markup:
    """Return lines of a console; each number leads to its line, at an address where other lines are around it.

    Without an address the lines follow one another and a number is an anchor for the mouse alone: going through
    thousands of them by key would help nobody, and there is a form for a line's number.
    """
    made = []
    for line in lines:
        link = f'{address}?line={line.number}#L{line.number}"' if address else f'#L{line.number}" tabindex="-1"'
        folded = f'<em title="{_FOLDED}">{count(line.folded, "earlier state")}</em>' if line.folded else ""
        made.append(
            f'<span id="L{line.number}"><a href="{link} data-n="{line.number}"><span class="vh">Line {line.number}</span></a>'
            f'<i data-t="{line.time}"></i><span>{line.html}{folded}\n</span></span>'
        )
    return Markup("".join(made))


_FOLDED = "Written over with carriage returns: all states are in the plain text"
_WORDS = ((CellState.SAME, "same output"), (CellState.NEW, "new output"), (CellState.FAILED, "failed"))
