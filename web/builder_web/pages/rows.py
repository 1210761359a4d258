"""The row of a job's last builds: as one drawing, and in words."""

from collections import Counter, defaultdict
from types import MappingProxyType

from builder_web.pages.parts import CellState, History
from builder_web.pages.words import count

CELL_WORDS = MappingProxyType({CellState.SAME: "same output", CellState.NEW: "new output", CellState.FAILED: "failed"})

# Each state has a shape of its own in a square of 10 units, drawn from a point that its move goes to: a disc, a diamond,
# a cross
_SHAPES = MappingProxyType(
    {
        CellState.SAME: (1.5, "a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z"),
        CellState.NEW: (0.7, "l4.3-4.3 4.3 4.3-4.3 4.3z"),
        CellState.FAILED: (
            3.4,
            "l-2.3-2.3 1.6-1.6 2.3 2.3 2.3-2.3 1.6 1.6-2.3 2.3 2.3 2.3-1.6 1.6-2.3-2.3-2.3 2.3-1.6-1.6z",
        ),
    }
)


def paths(history: History) -> list[tuple[str, str]]:
    """Return a state and the path that draws its cells, for each state."""
    drawn: defaultdict[CellState, list[str]] = defaultdict(list)
    for index, cell in enumerate(history.cells):
        left, shape = _SHAPES[cell.state]
        drawn[cell.state].append(f"M{index * 10 + left:.1f} 5{shape}")
    return [(state.value, "".join(parts)) for state, parts in drawn.items()]


def in_words(history: History) -> str:
    """Return what the row says, for those who don't see it."""
    numbers = Counter(cell.state for cell in history.cells)
    parts = [f"{numbers[state]} {words}" for state, words in CELL_WORDS.items() if numbers[state]]
    return f"Last {count(len(history.cells), 'build')} on {history.platform}: {', '.join(parts)}"
