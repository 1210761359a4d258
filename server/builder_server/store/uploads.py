"""Which executions are to be uploaded, where to, and how far that is. Each function is a step, or a part of one.

A build has a row for each receiver that is to get it, as long as its record is on the disk. Receivers that the server has no
longer keep their rows, and hold nothing up: see ``_conclude``. Which receivers another server has, that alone knows.
"""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder.extension.uploads import ListUploads, ReceiverState, UploadEntry, UploadState
from builder.model import Instant
from builder.runtime.database import require_alone
from builder_server.errors import CommandRefused
from builder_server.store.ownership import IS_MINE
from builder_server.store.records import Attempted, PendingUpload
from builder_server.store.schema import build, receiver, upload

PAGE = 100
"""Builds that are looked up at once."""

_PENDING, _DONE, _REFUSED = UploadState.PENDING.value, UploadState.DONE.value, UploadState.REFUSED.value

_WANTED: sa.BindParameter[str] = sa.bindparam("wanted")
_OF_BUILD = sa.select(upload.c.receiver, upload.c.state).where(upload.c.build == _WANTED)
_BUILD = sa.select(build.c.finished, build.c.upload).where(build.c.uuid == _WANTED)
_RESUME = sa.select(receiver.c.resume, receiver.c.tried, receiver.c.failures).where(receiver.c.name == _WANTED)
_WAITING = upload.c.receiver == _WANTED, upload.c.state == _PENDING
_IS_LEFT = build.c.upload.in_(("pending", "failed"))
_ROWS = sa.select(upload.c.build).where(upload.c.build == build.c.uuid)
_LISTED = (
    sa.select(upload, build.c.name, build.c.platform, receiver.c.resume, IS_MINE.label("is_mine"))
    .join(build, build.c.uuid == upload.c.build)
    .outerjoin(receiver, receiver.c.name == upload.c.receiver)
)
_COUNTS = (
    sa.select(
        upload.c.receiver,
        sa.func.count().filter(upload.c.state == _PENDING).label("pending"),
        sa.func.count().filter(upload.c.state == _REFUSED).label("refused"),
        sa.func.min(upload.c.since).filter(upload.c.state == _PENDING).label("oldest"),
        sa.func.count().filter(IS_MINE).label("mine"),
    )
    .join(build, build.c.uuid == upload.c.build)
    .where(upload.c.state != _DONE)
    .group_by(upload.c.receiver)
)
_REASON = (
    sa.select(upload.c.reason).where(*_WAITING, upload.c.reason.is_not(None)).order_by(upload.c.tried.desc()).limit(1)
)


def add(connection: sa.Connection, uuid: UUID, receivers: Collection[str], since: int) -> None:
    """Note that receivers are to get a build, which ended at that time."""
    _add_all(connection, [(str(uuid), since)], receivers)


def _add_all(connection: sa.Connection, ended: Iterable[tuple[str, int]], receivers: Collection[str]) -> None:
    rows = [
        {"build": uuid, "receiver": name, "state": _PENDING, "since": since}
        for uuid, since in ended
        for name in receivers
    ]
    if rows:
        connection.execute(sa.insert(upload), rows)


def unsettled(connection: sa.Connection, me: str, receivers: Collection[str], after: UUID | None) -> list[UUID]:
    """Return the next builds, by their uuids, that wait for nobody in particular, or for receivers other than these.

    The former are what an earlier release left, or was imported.
    """
    is_settled = sa.and_(_ROWS.exists(), ~_ROWS.where(upload.c.receiver.not_in(receivers)).exists())
    found = sa.select(build.c.uuid).where(_IS_LEFT, IS_MINE, ~is_settled).order_by(build.c.uuid).limit(PAGE)
    if after is not None:
        found = found.where(build.c.uuid > str(after))
    return [UUID(uuid) for uuid in connection.scalars(found, {"me": me})]


def settle(connection: sa.Connection, uuids: Collection[UUID], receivers: Collection[str]) -> None:
    """Have builds that wait for nobody wait for these receivers, and no build for others, unless nobody has it."""
    for uuid in uuids:
        if not _states(connection, uuid):
            found = connection.execute(_BUILD, {"wanted": str(uuid)}).one()
            add(connection, uuid, receivers, found.finished)
        _conclude(connection, uuid, receivers)


def _states(connection: sa.Connection, uuid: UUID) -> dict[str, str]:
    rows = connection.execute(_OF_BUILD, {"wanted": str(uuid)})
    return {row.receiver: row.state for row in rows}


def _conclude(connection: sa.Connection, uuid: UUID, receivers: Collection[str]) -> bool:
    """Note what the rows of a build mean for its record; return whether that may go, and the rows with it.

    It may if all receivers that the server has, and that were to get it, have it. Where none of these was to get it, those
    of before decide: what nobody has is never removed.
    """
    states = _states(connection, uuid)
    if not states:  # a commit that was lost with its answer is done again: the rows went with the first one
        found = connection.execute(_BUILD, {"wanted": str(uuid)}).one_or_none()
        return found is not None and found.upload == "uploaded"
    relevant = {state for name, state in states.items() if name in receivers}
    if not relevant and _DONE not in states.values():
        relevant = set(states.values())
    if _PENDING in relevant:
        set_state(connection, uuid, "pending")
    elif _REFUSED in relevant:
        set_state(connection, uuid, "failed")
    else:
        set_state(connection, uuid, "uploaded")
        connection.execute(sa.delete(upload).where(upload.c.build == str(uuid)))
        return True
    return False


def next_due(
    connection: sa.Connection, me: str, to: str, now: Instant, under_way: Collection[UUID]
) -> PendingUpload | Instant | None:
    """Return the upload to a receiver that has waited for longest, other than those; or when the next one may be tried.

    None: nothing waits. Those that have failed by themselves come after all others, so that they hold up none of these.
    What was tried in the future, when the clock was ahead, is due.
    """
    its = connection.execute(_RESUME, {"wanted": to}).one_or_none()
    if its is not None and its.tried <= now.ms < its.resume:
        return Instant(its.resume)
    waiting = *_WAITING, upload.c.build.not_in([str(uuid) for uuid in under_way])
    is_due = sa.or_(upload.c.next_attempt.is_(None), upload.c.next_attempt <= now.ms, upload.c.tried > now.ms)
    found = (
        sa.select(upload.c.build, upload.c.attempts, build.c.name, build.c.platform)
        .join(build, build.c.uuid == upload.c.build)
        .where(*waiting, is_due, IS_MINE)
        .order_by(upload.c.next_attempt.nulls_first(), upload.c.since, upload.c.build)
        .limit(1)
    )
    row = connection.execute(found, {"wanted": to, "me": me}).one_or_none()
    if row is not None:
        return PendingUpload(
            uuid=UUID(row.build),
            name=row.name,
            platform=row.platform,
            attempts=row.attempts,
            failures=its.failures if its else 0,
        )
    soonest = sa.select(sa.func.min(upload.c.next_attempt)).join(build, build.c.uuid == upload.c.build)
    at = connection.scalar(soonest.where(*waiting, IS_MINE), {"wanted": to, "me": me})
    return None if at is None else Instant(at)


def note(connection: sa.Connection, uuid: UUID, to: str, attempted: Attempted, receivers: Collection[str]) -> bool:
    """Record what came of an attempt; return whether all receivers have the build now."""
    values: dict[str, Any] = {
        "state": attempted.state.value,
        "tried": attempted.at.ms,
        "reason": attempted.reason,
        "next_attempt": attempted.next_attempt and attempted.next_attempt.ms,
    }
    if attempted.reason is not None:
        values["attempts"] = upload.c.attempts + 1
    connection.execute(sa.update(upload).where(upload.c.build == str(uuid), upload.c.receiver == to).values(values))
    if attempted.resume is not None:
        require_alone(connection)  # servers have receivers in common
    if attempted.failures is not None:
        connection.execute(sa.delete(receiver).where(receiver.c.name == to))
    if attempted.resume is not None:
        rests = {"failures": attempted.failures, "tried": attempted.at.ms, "resume": attempted.resume.ms}
        connection.execute(sa.insert(receiver), rests | {"name": to})
    return _conclude(connection, uuid, receivers)


def uploaded(connection: sa.Connection, me: str, after: UUID | None) -> tuple[UUID, ...]:
    """Return the next builds, by their uuids, that were uploaded and whose files are still to be removed."""
    found = sa.select(build.c.uuid).where(build.c.upload == "uploaded", IS_MINE).order_by(build.c.uuid).limit(PAGE)
    if after is not None:
        found = found.where(build.c.uuid > str(after))
    return tuple(UUID(uuid) for uuid in connection.scalars(found, {"me": me}))


def set_state(connection: sa.Connection, uuid: UUID, state: str) -> None:
    """Record how far the upload of a build is; what it takes on the disk is another then."""
    connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=state, size=None))


# --- what a person asks for ----------------------------------------------------------------------------------------


def retry(connection: sa.Connection, uuid: UUID, receivers: Collection[str]) -> int:
    """Have a build tried again now at the receivers that have not got it; return how many. Raises CommandRefused.

    Where it was to go to none of them, it goes to all.
    """
    found = connection.execute(_BUILD, {"wanted": str(uuid)}).one_or_none()
    if found is None or found.finished is None:
        raise CommandRefused(f"{uuid} has not ended")
    if found.upload in ("uploaded", "done"):
        raise CommandRefused(f"{uuid} is uploaded already")
    if not _states(connection, uuid).keys() & set(receivers):
        add(connection, uuid, receivers, found.finished)
    here = upload.c.build == str(uuid), upload.c.receiver.in_(receivers), upload.c.state != _DONE
    again = connection.execute(sa.update(upload).where(*here).values(state=_PENDING, next_attempt=None))
    connection.execute(sa.delete(receiver).where(receiver.c.name.in_(receivers)))
    _conclude(connection, uuid, receivers)
    return again.rowcount


def retry_all(connection: sa.Connection, me: str, receivers: Collection[str]) -> int:
    """Have all that is pending or was refused tried again now; return how many uploads these are.

    What a server has, and nobody has or is to get, goes to all of these receivers.
    """
    has_or_gets = _ROWS.where(sa.or_(upload.c.receiver.in_(receivers), upload.c.state == _DONE)).exists()
    lost = connection.execute(
        sa.select(build.c.uuid, build.c.finished).where(_IS_LEFT, IS_MINE, ~has_or_gets), {"me": me}
    ).all()
    _add_all(connection, ((row.uuid, row.finished) for row in lost), receivers)
    here = upload.c.receiver.in_(receivers), upload.c.state != _DONE
    again = connection.execute(sa.update(upload).where(*here).values(state=_PENDING, next_attempt=None))
    connection.execute(sa.delete(receiver).where(receiver.c.name.in_(receivers)))
    their = build.c.uuid.in_(sa.select(upload.c.build).where(*here))
    connection.execute(sa.update(build).where(their).values(upload="pending"))
    return again.rowcount


def drop(connection: sa.Connection, uuid: UUID) -> None:
    """Have a build go nowhere any more. Raises CommandRefused."""
    found = connection.execute(_BUILD, {"wanted": str(uuid)}).one_or_none()
    if found is None or found.upload not in ("pending", "failed"):
        raise CommandRefused(f"{uuid} is not to be uploaded")
    connection.execute(sa.delete(upload).where(upload.c.build == str(uuid)))
    connection.execute(sa.update(build).where(build.c.uuid == str(uuid)).values(upload=None))


def page(connection: sa.Connection, me: str, asked: ListUploads, receivers: Collection[str]) -> list[UploadEntry]:
    """Return a page, the oldest upload first."""
    found = _LISTED.order_by(upload.c.since, upload.c.build, upload.c.receiver).limit(asked.count)
    found = found.where(upload.c.state != _DONE if asked.build is None else upload.c.build == str(asked.build))
    if asked.behind is not None:
        place = sa.tuple_(upload.c.since, upload.c.build, upload.c.receiver)
        found = found.where(place > (asked.behind.since.ms, str(asked.behind.uuid), asked.behind.receiver))
    return [
        UploadEntry(
            uuid=UUID(row.build),
            job=row.name,
            platform=row.platform,
            receiver=row.receiver,
            state=UploadState(row.state),
            is_known=_is_known(row, receivers),
            since=Instant(row.since),
            attempts=row.attempts,
            tried=_instant(row.tried),
            next_attempt=_next(row) if row.state == _PENDING and _is_known(row, receivers) else None,
            reason=row.reason,
        )
        for row in connection.execute(found, {"me": me})
    ]


def _is_known(row: Any, receivers: Collection[str]) -> bool:
    return row.receiver in receivers or not row.is_mine


def _next(row: Any) -> Instant | None:
    return _instant(max(filter(None, (row.next_attempt, row.resume)), default=None))


def _instant(ms: int | None) -> Instant | None:
    return None if ms is None else Instant(ms)


def counts(connection: sa.Connection, me: str, receivers: Collection[str]) -> tuple[ReceiverState, ...]:
    """Return how uploads stand, receiver by receiver."""
    found = {row.receiver: row for row in connection.execute(_COUNTS, {"me": me})}
    rests = {row.name: row for row in connection.execute(sa.select(receiver))}

    def state(name: str) -> ReceiverState:
        row, rest = found.get(name), rests.get(name)
        return ReceiverState(
            name=name,
            is_known=name in receivers or (row is not None and not row.mine),
            pending=row.pending if row else 0,
            refused=row.refused if row else 0,
            failures=rest.failures if rest else 0,
            oldest=_instant(row.oldest) if row else None,
            resume=Instant(rest.resume) if rest else None,
            reason=connection.scalar(_REASON, {"wanted": name}),
        )

    return tuple(state(name) for name in sorted({*receivers, *found}))
