"""How things stand, for those who watch: without scripts, and only the begin of long lists. Each function is a step that reads."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from attrs import frozen

from builder.extension.halting import HaltState
from builder.extension.watching import Look, ResultState, RunningState
from builder.history import Cause, Outcome
from builder.model import Instant
from builder_server.estimates import SAMPLES, Waiting
from builder_server.store import halts, needed, queues
from builder_server.store.records import known_as, split_peer
from builder_server.store.schema import build, job, queue

_past = sa.alias(build)


def _expected(name: sa.ColumnElement[str], platform: sa.ColumnElement[str], *of: sa.FromClause) -> Any:
    """Return the median of how long the newest builds of a job took that succeeded on a platform, of two the lower one.

    ``of`` are the tables of both columns. It is a part of the statement: one by one, durations took most of a look's time.
    """
    newest = (
        sa.select((_past.c.finished - _past.c.started).label("took"))
        .where(_past.c.name == name, _past.c.platform == platform, _past.c.outcome == Outcome.SUCCEEDED.value)
        .order_by(_past.c.started.desc())
        .limit(SAMPLES)
        .correlate(*of)
        .subquery()
    )
    ranked = sa.select(
        newest.c.took,
        sa.func.row_number().over(order_by=newest.c.took).label("place"),
        sa.func.count().over().label("number"),
    ).subquery()
    median = sa.select(ranked.c.took).where(
        2 * ranked.c.place >= ranked.c.number, 2 * ranked.c.place <= ranked.c.number + 1
    )
    return median.scalar_subquery().label("expected")


_SCHEDULED = sa.select(sa.func.count()).select_from(job)
_RUNNING = (
    sa.select(
        build.c.uuid,
        build.c.name,
        build.c.platform,
        build.c.started,
        build.c.cause,
        build.c.worker,
        build.c.worker_name,
        _expected(build.c.name, build.c.platform, build),
    )
    .where(build.c.state == "running")
    .order_by(build.c.started.desc())
)
_COUNTS = sa.select(queue.c.platform, sa.func.count().label("entries")).group_by(queue.c.platform)
_ENTRIES = (
    sa.select(
        job.c.name,
        job.c.opam_package,
        job.c.paused,
        job.c.time_limit,
        queue.c.cause,
        queue.c.due,
        queue.c.not_before,
        queue.c.needs,
        _expected(job.c.name, queue.c.platform, job, queue),
    )
    .join(job, job.c.id == queue.c.job_id)
    .where(queue.c.platform == sa.bindparam("wanted"))
    .order_by(queue.c.position, queue.c.id)
    .limit(sa.bindparam("most"))
)
_RESULTS = (
    sa.select(build.c.uuid, build.c.name, build.c.platform, build.c.started, build.c.finished, build.c.outcome)
    .where(build.c.finished.is_not(None))
    .order_by(build.c.finished.desc())
    .limit(sa.bindparam("most"))
)

MAX_ENTRIES = 10_000
"""Entries of all queues that are told at once."""


@frozen(kw_only=True)
class Standing:
    """How things stand. ``queued`` has for each platform the number of its entries, and the first ones.

    ``needed`` has the different sets of needs of all of its entries.
    """

    scheduled: int
    running: tuple[RunningState, ...]
    queued: dict[str, tuple[int, tuple[Waiting, ...]]]
    results: tuple[ResultState, ...]
    needed: dict[str, tuple[str, ...]]
    halts: tuple[HaltState, ...]


def read(connection: sa.Connection, look: Look) -> Standing:
    """Return how things stand, as far as somebody wants to know."""

    def waiting(platform: str, most: int) -> Iterator[Waiting]:
        for row in connection.execute(_ENTRIES, {"wanted": platform, "most": most}):
            yield Waiting(
                job=row.name,
                cause=Cause(row.cause),
                is_orb=row.opam_package is not None,
                is_paused=row.paused,
                due=_instant(row.due),
                not_before=_instant(row.not_before),
                expected=row.expected,
                needs=row.needs,
                time_limit=row.time_limit,
            )

    running = tuple(
        RunningState(
            uuid=UUID(row.uuid),
            job=row.name,
            platform=row.platform,
            started=Instant(row.started),
            cause=Cause(row.cause),
            expected=row.expected,
            worker=known_as(row.worker, row.worker_name),
            holder=split_peer(row.worker or "")[0],
        )
        for row in connection.execute(_RUNNING)
        if look.platform in (None, row.platform)
    )
    counts = {row.platform: row.entries for row in connection.execute(_COUNTS)}
    queued = {}
    needed_there = {}
    left = MAX_ENTRIES
    for name in queues.platforms(connection):
        if look.platform in (None, name):
            entries = tuple(waiting(name, min(look.entries, left)))
            left -= len(entries)
            queued[name] = counts.get(name, 0), entries
            needed_there[name] = tuple(connection.scalars(needed.EACH_THERE, {"wanted": name}))
    results = tuple(map(_result, connection.execute(_RESULTS, {"most": look.results})))
    return Standing(
        scheduled=connection.scalar(_SCHEDULED) or 0,
        running=running,
        queued=queued,
        results=results,
        halts=tuple(halts.find(connection).values()),
        needed=needed_there,
    )


def _instant(ms: int | None) -> Instant | None:
    return None if ms is None else Instant(ms)


def _result(row: Any) -> ResultState:
    return ResultState(
        uuid=UUID(row.uuid),
        job=row.name,
        platform=row.platform,
        started=Instant(row.started),
        finished=Instant(row.finished),
        outcome=None if row.outcome is None else Outcome(row.outcome),
    )
