"""When what waits is likely to start, and why it waits. Pure: the time is an argument. Times are milliseconds."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from builder.extension.watching import QueuedState, RunningState, Why
from builder.history import Cause
from builder.model import Instant

SAMPLES = 5
"""The newest builds that succeeded from whose durations the next one is foretold."""


@frozen(kw_only=True)
class Waiting:
    """An entry of a queue. ``is_orb``: it needs a template."""

    job: str
    cause: Cause
    is_orb: bool
    is_paused: bool
    due: Instant | None = None
    not_before: Instant | None = None
    expected: int | None = None


@frozen(kw_only=True)
class Circumstances:
    """Where entries wait: a platform, the builds that run there, and how many workers wait.

    Those that are ``drained`` are in neither.
    """

    platform: str
    waiting: int
    running: Sequence[RunningState] = ()
    has_template: bool = True
    is_full: bool = False
    is_drained: bool = False
    drained: int = 0


def foresee(place: Circumstances, entries: Iterable[Waiting], now: Instant) -> Iterator[QueuedState]:
    """Say of each entry of a queue, in their order, why it waits, and when it is likely to start.

    Each worker takes the first entry that it can run, for as long as that is expected to take. A worker of which nobody
    knows when it is free again is left out: what is said may come true earlier.
    """
    free = [now.ms] * place.waiting + [free_at for build in place.running if (free_at := _end(build, now)) is not None]
    heapq.heapify(free)
    ahead = 0
    for entry in entries:
        why = _obstacle(place, entry, now)
        if why is None:
            why = Why.NEXT if ahead < place.waiting else Why.BEHIND if ahead else Why.BUSY
        start = None
        if why not in _STUCK and free:
            begin = max(free[0], entry.not_before.ms if entry.not_before else 0)
            start = Instant(begin)
            heapq.heappop(free)
            if entry.expected is not None:
                heapq.heappush(free, begin + entry.expected)
        yield QueuedState(
            job=entry.job,
            platform=place.platform,
            cause=entry.cause,
            why=why,
            ahead=ahead,
            due=entry.due,
            not_before=entry.not_before,
            start=start,
            expected=entry.expected,
        )
        if why not in _PASSED:
            ahead += 1


_PASSED = frozenset({Why.PAUSED, Why.NO_TEMPLATE, Why.NOT_BEFORE})
"""What others overtake meanwhile."""

_STUCK = frozenset({Why.PAUSED, Why.NO_TEMPLATE, Why.DRAINED, Why.WORKERS_DRAINED, Why.DISK_FULL, Why.NO_WORKER})
"""What ends nobody knows when."""


def _obstacle(place: Circumstances, entry: Waiting, now: Instant) -> Why | None:
    if entry.is_paused:
        return Why.PAUSED
    if entry.is_orb and not place.has_template:
        return Why.NO_TEMPLATE
    if entry.not_before is not None and entry.not_before > now:
        return Why.NOT_BEFORE
    if place.is_drained:
        return Why.DRAINED
    if place.is_full:
        return Why.DISK_FULL
    if not place.waiting and not place.running:
        return Why.WORKERS_DRAINED if place.drained else Why.NO_WORKER
    return None


def _end(build: RunningState, now: Instant) -> int | None:
    """Return when a build is likely to end: at once where it takes longer than expected."""
    return None if build.expected is None else max(now.ms, build.started.ms + build.expected)
