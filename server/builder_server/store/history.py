"""The history: builds of any state, and runs that were left out. Each function is a step, or a part of one.

Each way to ask for it is the order of an index, so that a page takes as long among a million builds as among a few.
"""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder import codec
from builder.extension.builds import HistoryEntry, HistoryPlace, ShowHistory
from builder.history import Cause, Outcome
from builder.model import Instant, Result
from builder_server.store.schema import build, job, skipped

_SHOWN = (
    build.c.uuid, build.c.name, build.c.platform, build.c.started, build.c.finished, build.c.result, build.c.upload,
    build.c.due, build.c.cause, build.c.cause_of, build.c.retry, build.c.worker, build.c.worker_name, build.c.outcome,
    build.c.ended_by, build.c.artifacts, build.c.artifact_bytes, build.c.main_hash, build.c.verdict,
)  # fmt: skip
_before = sa.alias(build)
_PREVIOUS = (
    sa.select(_before.c.uuid)
    .where(
        _before.c.name == build.c.name,
        _before.c.platform == build.c.platform,
        _before.c.outcome == Outcome.SUCCEEDED.value,
        _before.c.started < build.c.started,
    )
    .order_by(_before.c.started.desc())
    .limit(1)
    .scalar_subquery()
)


def _compared(page: sa.Select[Any]) -> sa.Select[Any]:
    """Return a page of builds, each compared with the success before it."""
    compared = build.c.script, build.c.template, build.c.opam_package
    found = page.add_columns(build.c.job_id, *compared, _PREVIOUS.label("previous")).subquery()
    previous = sa.alias(build)
    # what a template says is no change of a job that names the package
    has_package = sa.and_(found.c.opam_package.is_not(None), previous.c.opam_package.is_not(None))
    is_other_package = found.c.opam_package != previous.c.opam_package
    return (
        sa.select(
            *(found.c[column.name] for column in _SHOWN),
            found.c.previous,
            sa.case((has_package, is_other_package), else_=found.c.script != previous.c.script).label("script_changed"),
            (found.c.template != previous.c.template).label("template_changed"),
            (found.c.main_hash != previous.c.main_hash).label("artifacts_changed"),
            job.c.retries,
        )
        .select_from(found)
        .outerjoin(previous, previous.c.uuid == found.c.previous)
        .outerjoin(job, job.c.id == found.c.job_id)
        .order_by(found.c.started.desc(), found.c.uuid.desc())
    )


def page(connection: sa.Connection, asked: ShowHistory) -> tuple[HistoryEntry, ...]:
    """Return a page, the newest entry first."""
    found = _builds(connection, asked)
    if not asked.failed:
        found += _skipped(connection, asked)
    found.sort(key=lambda entry: (entry.place.at, entry.place.key), reverse=True)
    return tuple(found[: asked.count])


def _bounded(
    statement: sa.Select[Any], asked: ShowHistory, table: Any, at: sa.Column[int], later: sa.ColumnElement[bool]
) -> sa.Select[Any]:
    """Bound a statement; ``later`` are the entries at the time of the place that it begins behind which still come."""
    if asked.name is not None:
        statement = statement.where(table.c.name == asked.name)
    if asked.platform is not None:
        statement = statement.where(table.c.platform == asked.platform)
    if asked.since is not None:
        statement = statement.where(at >= asked.since.ms)
    if asked.behind is not None:
        place = asked.behind
        statement = statement.where(at <= place.at.ms, sa.or_(at < place.at.ms, later))
    return statement.limit(asked.count)


def _builds(connection: sa.Connection, asked: ShowHistory) -> list[HistoryEntry]:
    statement = sa.select(*_SHOWN).order_by(build.c.started.desc(), build.c.uuid.desc())
    if asked.failed:
        statement = statement.where(build.c.outcome == Outcome.FAILED.value)
    key = asked.behind.key if asked.behind else ""
    bounded = _bounded(statement, asked, build, build.c.started, build.c.uuid < key)
    return [_to_entry(row) for row in connection.execute(_compared(bounded))]


_SKIPPED = " "
"""Begins the keys of runs that were left out: so they stand before all uuids."""

_LAST = 2**63 - 1
"""No number is larger in a database; one of a key may be."""


def _skipped(connection: sa.Connection, asked: ShowHistory) -> list[HistoryEntry]:
    key = asked.behind.key if asked.behind else ""
    later = skipped.c.id < min(int(key), _LAST) if key.startswith(_SKIPPED) else sa.true()
    statement = sa.select(skipped).order_by(skipped.c.due.desc(), skipped.c.id.desc())
    return [
        HistoryEntry(
            place=HistoryPlace(at=Instant(row.due), key=f"{_SKIPPED}{row.id:019}"),
            name=row.name,
            platform=row.platform,
            cause=Cause(row.cause),
            cause_of=row.cause_of,
            retry=0,
            skipped=row.reason,
            due=Instant(row.due),
        )
        for row in connection.execute(_bounded(statement, asked, skipped, skipped.c.due, later))
    ]


def _instant(value: int | None) -> Instant | None:
    return None if value is None else Instant(value)


def _to_entry(row: Any) -> HistoryEntry:
    result: Result | None = None if row.result is None else codec.decode_result(row.result)
    return HistoryEntry(
        place=HistoryPlace(at=Instant(row.started), key=row.uuid),
        name=row.name,
        platform=row.platform,
        cause=Cause(row.cause),
        retry=row.retry,
        uuid=UUID(row.uuid),
        cause_of=row.cause_of,
        retries=row.retries,
        due=_instant(row.due),
        started=Instant(row.started),
        finished=_instant(row.finished),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        result=result,
        ended_by=row.ended_by,
        worker=row.worker,
        worker_name=row.worker_name,
        artifacts=row.artifacts,
        artifact_bytes=row.artifact_bytes,
        main_hash=row.main_hash,
        verdict=row.verdict,
        upload=row.upload,
        previous=None if row.previous is None else UUID(row.previous),
        script_changed=None if row.script_changed is None else bool(row.script_changed),
        template_changed=row.template_changed,
        artifacts_changed=row.artifacts_changed,
    )


def find(connection: sa.Connection, begin: str, most: int) -> tuple[HistoryEntry, ...]:
    """Return builds whose uuid begins so, at most so many."""
    # as bounds, so that it is a part of the index in any database; "g" is behind all hexadecimal digits
    found = sa.select(*_SHOWN).where(build.c.uuid >= begin, build.c.uuid < begin + "g").limit(most)
    return tuple(_to_entry(row) for row in connection.execute(_compared(found)))
