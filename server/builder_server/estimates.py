"""When what waits is likely to start, and why it waits. Pure: the time is an argument. Times are milliseconds."""

import functools
import heapq
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from builder.extension.watching import QueuedState, RunningState, Unmet, Why
from builder.history import Cause
from builder.model import Instant
from builder.needs import Capabilities, Need, instead, of_text

SAMPLES = 5
"""The newest builds that succeeded from whose durations the next one is foretold."""

MAX_TOLD = 3
"""Most needs that are told of a job that waits for them, and most such sets of needs of a platform."""


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
    needs: str = ""
    time_limit: int | None = None


@frozen(kw_only=True)
class Worker:
    """A worker that is connected, and has or waits for a job."""

    name: str
    able: Capabilities
    is_waiting: bool


@frozen(kw_only=True)
class Circumstances:
    """Where entries wait: a platform, the builds that run there, and how many workers wait.

    Those that are ``drained``, or ``pressed`` and take no job now, are in neither. Of ``workers`` it is known what they have, and of so many it is ``unknown``.
    ``template_needs`` is what orb builds need besides.
    """

    platform: str
    waiting: int
    running: Sequence[RunningState] = ()
    has_template: bool = True
    is_full: bool = False
    is_drained: bool = False
    drained: int = 0
    pressed: int = 0
    workers: Sequence[Worker] = ()
    unknown: int = 0
    template_needs: tuple[Need, ...] = ()

    def unmet(self, needs: tuple[Need, ...]) -> Unmet | None:
        """Return what no worker has of what is needed; None if one has it, or if that is not known of all."""
        if not needs or not self.workers or self.unknown:
            return None
        lacking = {worker.name: worker.able.lacks(needs) for worker in self.workers}
        nearest = min(lacking, key=lambda name: (len(lacking[name]), name))
        if not lacking[nearest]:
            return None
        nobody = [need for need in needs if all(need in lacks for lacks in lacking.values())][:MAX_TOLD]
        having = {worker.able for worker in self.workers}
        return Unmet(
            missing=tuple(nobody),
            nearest=nearest,
            lacks=lacking[nearest][:MAX_TOLD],
            instead=tuple(filter(None, (instead(need, having) for need in nobody))),
        )

    def can_begin(self, needs: tuple[Need, ...]) -> bool:
        """Return whether a worker that waits has what is needed."""
        return not needs or any(worker.is_waiting and not worker.able.lacks(needs) for worker in self.workers)

    def needed(self, entry: Waiting) -> tuple[Need, ...]:
        """Return what a worker needs for an entry."""
        return of_text(entry.needs) + (self.template_needs if entry.is_orb else ())


def foresee(place: Circumstances, entries: Iterable[Waiting], now: Instant) -> Iterator[QueuedState]:
    """Say of each entry of a queue, in their order, why it waits, and when it is likely to start.

    Each worker takes the first entry that it can run, for as long as that is expected to take. A worker of which nobody
    knows when it is free again is left out: what is said may come true earlier.
    """
    free = [now.ms] * place.waiting + [free_at for build in place.running if (free_at := _end(build, now)) is not None]
    heapq.heapify(free)
    ahead = 0
    unmet, can_begin = functools.cache(place.unmet), functools.cache(place.can_begin)
    for entry in entries:
        needs = place.needed(entry)
        why = _obstacle(place, entry, now)
        if why is None and unmet(needs) is not None:
            why = Why.NEEDS
        is_aside = why is None and not can_begin(needs)  # nobody who could take it waits: those behind it go first
        if is_aside:
            why = Why.ABLE_BUSY
        elif why is None:
            why = Why.NEXT if ahead < place.waiting else Why.BEHIND if ahead else Why.BUSY
        start = None
        if why not in _STUCK and not is_aside and free:
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
            unmet=unmet(needs) if why is Why.NEEDS else None,
            needs=needs,
            time_limit=entry.time_limit,
        )
        if why not in _PASSED and not is_aside:
            ahead += 1


_PASSED = frozenset({Why.PAUSED, Why.NO_TEMPLATE, Why.NOT_BEFORE, Why.NEEDS})
"""What others overtake meanwhile."""

_STUCK = frozenset(
    {
        Why.PAUSED,
        Why.NO_TEMPLATE,
        Why.DRAINED,
        Why.WORKERS_DRAINED,
        Why.PRESSED,
        Why.DISK_FULL,
        Why.NO_WORKER,
        Why.NEEDS,
    }
)
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
        return Why.PRESSED if place.pressed else Why.WORKERS_DRAINED if place.drained else Why.NO_WORKER
    return None


def _end(build: RunningState, now: Instant) -> int | None:
    """Return when a build is likely to end: at once where it takes longer than expected."""
    return None if build.expected is None else max(now.ms, build.started.ms + build.expected)
