"""Differences of two texts by lines, as ``diff -u`` shows them. The time is bounded, however large both are."""

from collections.abc import Iterator, Sequence

from attrs import frozen

MAX_EDITS = 500
"""Lines removed and added up to which the shortest way is looked for: that takes time and memory by its square."""

MAX_STEPS = 2_000_000
"""Lines compared on that search, about a second. Beyond either, all between the first and last difference differs."""

_CONTEXT = 3  # equal lines around each difference, as diff has it


@frozen(kw_only=True)
class _Change:
    """Lines ``left[start:stop]`` became ``right[right_start:right_stop]``."""

    start: int
    stop: int
    right_start: int
    right_stop: int


def unified(left: Sequence[str], right: Sequence[str], *, left_name: str, right_name: str) -> list[str]:
    """Return the lines of a unified diff of lines without their ends; none when they are equal."""
    hunks = [_hunk(group, left, right) for group in _groups(_changes(left, right))]
    lines = [line for hunk in hunks for line in hunk]
    return [f"--- {left_name}", f"+++ {right_name}", *lines] if lines else []


def _hunk(changes: Sequence[_Change], left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    first, last = changes[0], changes[-1]
    before = min(first.start, _CONTEXT)
    after = min(len(left) - last.stop, _CONTEXT)
    left_range = _range(first.start - before, last.stop + after)
    right_range = _range(first.right_start - before, last.right_stop + after)
    yield f"@@ -{left_range} +{right_range} @@"
    position = first.start - before
    for change in changes:
        yield from (" " + line for line in left[position : change.start])
        yield from ("-" + line for line in left[change.start : change.stop])
        yield from ("+" + line for line in right[change.right_start : change.right_stop])
        position = change.stop
    yield from (" " + line for line in left[position : position + after])


def _range(start: int, stop: int) -> str:
    count = stop - start
    if count == 1:
        return f"{stop}"
    return f"{start + 1 if count else start},{count}"


def _groups(changes: Sequence[_Change]) -> Iterator[list[_Change]]:
    """Yield changes together whose contexts touch."""
    group: list[_Change] = []
    for change in changes:
        if group and change.start - group[-1].stop > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _changes(left: Sequence[str], right: Sequence[str]) -> list[_Change]:
    shorter = min(len(left), len(right))
    prefix = next((index for index in range(shorter) if left[index] != right[index]), shorter)
    rest = shorter - prefix
    suffix = next((index for index in range(rest) if left[-1 - index] != right[-1 - index]), rest)
    middle, right_middle = left[prefix : len(left) - suffix], right[prefix : len(right) - suffix]
    equal = [*_equal_runs(middle, right_middle), (len(middle), len(right_middle), 0)]
    changes = []
    start = right_start = 0
    for position, right_position, length in equal:
        if (position, right_position) != (start, right_start):
            changes.append(
                _Change(
                    start=prefix + start,
                    stop=prefix + position,
                    right_start=prefix + right_start,
                    right_stop=prefix + right_position,
                )
            )
        start, right_start = position + length, right_position + length
    return changes


def _equal_runs(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return the lines that a shortest edit keeps, as (position, position on the right, length); Myers' algorithm.

    ``furthest[k]`` is how far to the left's end one comes with ``edits`` edits on the diagonal ``k``, the lines removed
    less the lines added.
    """
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    steps = 0
    for edits in range(MAX_EDITS + 1):
        history.append(furthest)
        furthest = {}
        before = history[-1]
        for diagonal in range(-edits, edits + 1, 2):
            below, above = before.get(diagonal + 1, -1), before.get(diagonal - 1, -1)
            x = below if diagonal == -edits or (diagonal != edits and above < below) else above + 1
            y = x - diagonal
            start = x
            while x < len(left) and y < len(right) and left[x] == right[y]:
                x, y = x + 1, y + 1
            steps += x - start + 1
            furthest[diagonal] = x
            if x >= len(left) and y >= len(right):
                return _walk_back(history, x, y)
            if steps > MAX_STEPS:
                return []
    return []


def _walk_back(history: Sequence[dict[int, int]], x: int, y: int) -> list[tuple[int, int, int]]:
    runs = []
    for edits in range(len(history) - 1, -1, -1):
        before = history[edits]
        diagonal = x - y
        below, above = before.get(diagonal + 1, -1), before.get(diagonal - 1, -1)
        is_added = diagonal == -edits or (diagonal != edits and above < below)
        previous = diagonal + 1 if is_added else diagonal - 1
        start = before[previous] if is_added else before[previous] + 1
        if x > start:
            runs.append((start, start - diagonal, x - start))
        x = before[previous]
        y = x - previous
    return runs[::-1]
