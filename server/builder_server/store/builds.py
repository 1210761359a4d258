"""Builds from a queue to the history. Each function is a step."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from builder import codec
from builder.extension.watching import What
from builder.history import DIFFERS, REPRODUCIBLE, Cause, Outcome, outcome_of
from builder.model import Instant, OrbBuildJob, Result
from builder.needs import NOTHING, of_text
from builder.runtime.database import is_alone, require_alone
from builder_server.scheduler import MAX_LOSSES, PAUSE, backoff
from builder_server.store import artifacts, dependencies, halts, needed, provenance, queues, uploads
from builder_server.store.newcomers import Newcomers
from builder_server.store.ownership import IS_MINE
from builder_server.store.records import (
    AfterLoss,
    Build,
    BuildHead,
    Expanded,
    Holder,
    Taken,
    to_build,
    to_head,
    to_job,
)
from builder_server.store.schema import build, job, queue
from builder_server.store.waking import Woken

Expand = Callable[[OrbBuildJob], Expanded | None]
"""Makes the script of an orb-build job; None where that can't be one."""

_wanted = sa.bindparam("wanted", type_=queue.c.platform.type)
_after = sa.bindparam("after", type_=queue.c.position.type)
_entry = sa.alias(queue)
_entry_job = sa.alias(job)
_behind = sa.and_(_entry.c.position >= _after, sa.or_(_entry.c.position > _after, _entry.c.id > sa.bindparam("behind")))


def _first(*where: sa.ColumnElement[bool], is_locked: bool = False) -> sa.Select[Any]:
    """Return the first entry of a platform that can be taken, among those whose needs are ``met``.

    The first one of each set of needs is found by the index, and then the first of these: however many entries nobody
    can take, they delay no other. ``is_locked``: so are all these first ones, and what others have locked is passed over.
    """
    of_set = (
        sa.select(_entry.c.id)
        .join(_entry_job, _entry_job.c.id == _entry.c.job_id)
        .where(_entry.c.platform == _wanted, _entry.c.needs == needed.THERE.c.needs)
        .where(_entry.c.not_before.is_(None), ~_entry_job.c.paused, *where)
        .order_by(_entry.c.position, _entry.c.id)
        .limit(1)
        .correlate(needed.THERE)
    )
    if is_locked:
        of_set = of_set.with_for_update(of=_entry, skip_locked=True)
    firsts = sa.select(of_set.scalar_subquery()).where(needed.THERE.c.needs.in_(sa.bindparam("met", expanding=True)))
    return (
        sa.select(
            queue.c.id.label("entry"), queue.c.position, queue.c.losses, queue.c.due, queue.c.cause, queue.c.cause_of,
            queue.c.retry, queue.c.check_of, job,
        )
        .join(job, job.c.id == queue.c.job_id)
        .where(queue.c.id.in_(firsts))
        .order_by(queue.c.position, queue.c.id)
        .limit(1)
    )  # fmt: skip


_Pick = tuple[sa.Select[Any], sa.Select[Any]]
"""How the first entry that can be taken is found, and how it is locked as well."""

_FIRST: _Pick = _first(), _first(is_locked=True)
_NEXT: _Pick = _first(_behind), _first(_behind, is_locked=True)
_is_script = _entry_job.c.platform.is_not(None)
_NEXT_SCRIPT: _Pick = _first(_behind, _is_script), _first(_behind, _is_script, is_locked=True)
_RETRIES = (
    sa.select(build.c.job_id, build.c.platform, build.c.retry, job.c.retries)
    .join(job, job.c.id == build.c.job_id)
    .where(build.c.uuid == sa.bindparam("wanted"))
)
MINUTE = dt.timedelta(minutes=1)
"""The time in which attempts at one job are counted."""

_RECENT = (
    sa.select(build.c.started)
    .where(
        build.c.name == sa.bindparam("name"),
        build.c.platform == sa.bindparam("platform"),
        build.c.started > sa.bindparam("since"),
        build.c.started <= sa.bindparam("until"),
    )
    .order_by(build.c.started.desc())
    .offset(sa.bindparam("skip", type_=sa.Integer))
    .limit(1)
)
_PUT_OFF = sa.update(queue).where(queue.c.id == sa.bindparam("entry")).values(not_before=sa.bindparam("until"))
_EXISTS = sa.select(sa.literal(1)).select_from(job).where(job.c.id == sa.bindparam("wanted"))
_JUDGE = sa.update(build).where(build.c.uuid == sa.bindparam("judged")).values(verdict=sa.bindparam("said"))
_FIND = sa.select(build).where(build.c.uuid == sa.bindparam("wanted"))

_END = (
    sa.update(build)
    .where(build.c.uuid == sa.bindparam("ended"), build.c.state == "running", IS_MINE)
    .returning(build.c.name, build.c.platform, build.c.job_id, build.c.check_of)
)

_IS_RECORDED = sa.select(sa.literal(1)).where(
    build.c.uuid == sa.bindparam("ended"),
    build.c.state == "finished",
    build.c.finished == sa.bindparam("at"),
    build.c.result == sa.bindparam("said"),
    IS_MINE,
)

_FORGET_SECRET = sa.update(build).where(build.c.uuid == sa.bindparam("ended")).values(secret_sha256=None)

_CANCEL = (
    sa.update(build)
    .where(build.c.uuid == sa.bindparam("cancelled"), build.c.state == "running", IS_MINE)
    .values(ended_by=sa.bindparam("by"))
)


def take(
    connection: sa.Connection,
    woken: Woken,
    me: str,
    platform: str,
    uuid: UUID,
    now: Instant,
    expand: Expand | None,
    holder: Holder | None,
    max_attempts: int,
    newcomers: Newcomers,
) -> Taken:
    """Turn the first job of a queue that can run into a running build, creating the queue of a new platform.

    What needs more than its worker has stays queued.
    """
    match queues.is_dropped(connection, platform):
        case True:
            return Taken()
        case None:
            require_alone(connection)
            newcomers.admit(holder, platform, now)
            queues.add_platform(connection, woken, platform, now, is_for_worker=True)
    if halts.applies(connection, me, platform, holder.known_as if holder else ""):
        return Taken(is_halted=True)
    able = holder.able if holder else NOTHING
    met = [
        said for said in connection.scalars(needed.EACH_THERE, {"wanted": platform}) if not able.lacks(of_text(said))
    ]
    row = _pick(connection, _FIRST, {"wanted": platform, "met": met}) if met else None
    blocked: str | None = None
    while row is not None:
        queued = to_job(row)
        expanded = expand(queued) if expand and isinstance(queued, OrbBuildJob) else None
        script_job = expanded.job if expanded else queued
        if not isinstance(script_job, OrbBuildJob):
            if not_before := _too_often(connection, queued.name, platform, now, max_attempts):
                connection.execute(_PUT_OFF, {"entry": row.entry, "until": not_before.ms})
                woken.schedule = True
                row = _pick(connection, _FIRST, {"wanted": platform, "met": met})
                continue
            connection.execute(sa.delete(queue).where(queue.c.id == row.entry))
            taken = Build(
                uuid=uuid,
                job=script_job,
                started=now,
                losses=row.losses,
                time_limit=row.time_limit,
                max_silent=row.max_silent,
                secret_sha256=holder.secret_sha256 if holder else None,
            )
            why = {"due": row.due, "cause": row.cause, "cause_of": row.cause_of, "retry": row.retry}
            why["check_of"] = row.check_of
            made_of = {"template": expanded and expanded.template, "opam_package": row.opam_package}
            whose = {"job_id": row.id, "owner": me, "worker": holder and holder.address}
            whose["worker_name"] = holder and holder.name
            connection.execute(sa.insert(build), _values(taken) | why | made_of | whose)
            dependencies.begin(connection, row.id, platform)
            woken.note(What.BEGUN, job=row.name, platform=platform, uuid=uuid)
            return Taken(build=taken, blocked=blocked)
        blocked = blocked or queued.name
        place = {"after": row.position, "behind": row.entry}
        row = _pick(connection, _NEXT if expand else _NEXT_SCRIPT, {"wanted": platform, "met": met} | place)
    return Taken(blocked=blocked)


def _pick(connection: sa.Connection, pick: _Pick, values: Mapping[str, object]) -> Any:
    """Return the first entry that can be taken, None if there is none. Nobody else takes it.

    Others may leave what they have locked: where there is nothing else they are waited for.
    """
    finding, locking = pick
    if is_alone(connection):
        return connection.execute(finding, values).one_or_none()
    row = connection.execute(locking, values).one_or_none()
    if row is None and connection.execute(finding, values).one_or_none() is not None:
        require_alone(connection)
    return row


def _too_often(connection: sa.Connection, name: str, platform: str, now: Instant, most: int) -> Instant | None:
    """Return until when a job must wait that was begun so often within a minute; None if it need not."""
    wanted = {"name": name, "platform": platform, "since": now.plus(-MINUTE).ms, "until": now.ms, "skip": most - 1}
    started = connection.scalar(_RECENT, wanted)
    return None if started is None else Instant(started).plus(MINUTE)


def _values(taken: Build) -> dict[str, object]:
    return {
        "uuid": str(taken.uuid),
        "name": taken.job.name,
        "platform": taken.job.platform,
        "script": taken.job.script,
        "state": taken.state,
        "losses": taken.losses,
        "started": taken.started.ms,
        "time_limit": taken.time_limit,
        "max_silent": taken.max_silent,
        "secret_sha256": taken.secret_sha256,
    }


def finish(
    connection: sa.Connection,
    woken: Woken,
    me: str,
    uuid: UUID,
    now: Instant,
    result: Result,
    *,
    concluded: artifacts.Conclusion,
    receivers: Collection[str],
    is_lost: bool,
    ended_by: str | None,
    is_delivered: bool,
) -> bool:
    """Record the result of a running build, and queue what follows from it: those that wait for it, or itself again.

    Return False, and change nothing, if it does not run any more, or is another server's; True if this has just been recorded:
    where a commit was lost with its answer it is done again.
    """
    outcome = Outcome.LOST if is_lost else outcome_of(result)
    upload_state = "pending" if receivers else None
    ended = _end(
        connection, woken, me, uuid, now, result, outcome, state="finished", upload=upload_state, ended_by=ended_by
    )
    if ended is None:
        recorded = {"me": me, "ended": str(uuid), "at": now.ms, "said": codec.encode_result(result)}
        return connection.scalar(_IS_RECORDED, recorded) is not None
    if not is_delivered:
        connection.execute(_FORGET_SECRET, {"ended": str(uuid)})
    artifacts.note(connection, uuid, concluded)
    uploads.add(connection, uuid, receivers, now.ms)
    if ended.check_of is not None:
        _check(connection, woken, uuid, ended, outcome, now, concluded.differing)
    if outcome is Outcome.SUCCEEDED and not ended.check_of:  # the run before has woken them
        dependencies.meet(connection, woken, ended.name, ended.platform, now)
    elif outcome is Outcome.FAILED:
        _queue_retry(connection, woken, uuid, now)
    return True


def _check(
    connection: sa.Connection,
    woken: Woken,
    uuid: UUID,
    ended: Any,
    outcome: Outcome,
    now: Instant,
    differing: str | None,
) -> None:
    """Queue the second run of a check, or compare it with the first. A run that did not succeed ends the check."""
    if outcome is not Outcome.SUCCEEDED:
        return
    if not ended.check_of:
        if queues.is_dropped(connection, ended.platform) is False and connection.scalar(
            _EXISTS, {"wanted": ended.job_id}
        ):
            queues.move_to_front(
                connection, woken, [ended.platform], ended.job_id,
                due=now, cause=Cause.CHECK, cause_of=str(uuid), check_of=str(uuid),
            )  # fmt: skip
        return
    verdict = REPRODUCIBLE if differing is None else f"{DIFFERS}{differing}"
    connection.execute(_JUDGE, [{"judged": each, "said": verdict} for each in (ended.check_of, str(uuid))])


def _queue_retry(connection: sa.Connection, woken: Woken, uuid: UUID, now: Instant) -> None:
    found = connection.execute(_RETRIES, {"wanted": str(uuid)}).one_or_none()
    if found is None or found.retry >= found.retries:
        return
    not_before = now.plus(backoff(found.retry))
    queues.enqueue_retry(
        connection,
        woken,
        found.job_id,
        found.platform,
        due=now,
        retry=found.retry + 1,
        failed=str(uuid),
        not_before=not_before,
    )
    woken.schedule = True


def lose(
    connection: sa.Connection,
    woken: Woken,
    me: str,
    uuid: UUID,
    now: Instant,
    result: Result,
    *,
    count: bool,
    may_pause: bool,
) -> AfterLoss | str:
    """Take a running build from its worker: the job returns to the front of its queue, unless it was cancelled, and by whom.

    With ``may_pause``, where nobody is to blame, it may return for ever: from the second time on it lets others go first.
    """
    found = connection.execute(
        sa.select(
            build.c.job_id,
            build.c.platform,
            build.c.losses,
            build.c.due,
            build.c.retry,
            build.c.cause,
            build.c.check_of,
            build.c.ended_by,
            job.c.id.label("scheduled"),
            job.c.platform.label("its_platform"),
        )
        .outerjoin(job, job.c.id == build.c.job_id)
        .where(build.c.uuid == str(uuid), build.c.state == "running", IS_MINE),
        {"me": me},
    ).one_or_none()
    if found is None:
        return AfterLoss.NOT_RUNNING
    if found.ended_by is not None:
        return str(found.ended_by)
    losses = found.losses + (1 if count else 0)
    if losses >= MAX_LOSSES:
        return AfterLoss.TOO_MANY
    _end(connection, woken, me, uuid, now, result, Outcome.LOST, state="lost")
    connection.execute(_FORGET_SECRET, {"ended": str(uuid)})
    artifacts.forget(connection, uuid)
    there = found.its_platform or found.platform  # the job may have been changed meanwhile
    if found.scheduled is not None and queues.is_dropped(connection, there) is False:
        due = now if found.due is None else Instant(found.due)
        is_again = may_pause and found.cause == Cause.LOST.value
        queues.move_to_front(
            connection, woken, [there], found.job_id,
            due=due, cause=Cause.LOST, cause_of=str(uuid), losses=losses, retry=found.retry,
            not_before=now.plus(PAUSE) if is_again else None, check_of=found.check_of,
        )  # fmt: skip
        woken.schedule = is_again
    return AfterLoss.PUT_BACK


def note_cancel(connection: sa.Connection, me: str, uuid: UUID, by: str) -> bool:
    """Note who has cancelled a running build: ``lose`` does not put it back then. Return False if it does not run."""
    return connection.execute(_CANCEL, {"me": me, "cancelled": str(uuid), "by": by}).rowcount == 1


def _end(
    connection: sa.Connection,
    woken: Woken,
    me: str,
    uuid: UUID,
    now: Instant,
    result: Result,
    outcome: Outcome,
    *,
    state: str,
    upload: str | None = None,
    ended_by: str | None = None,
) -> Any:
    """Record how a running build ended; return its name and platform, None if it does not run."""
    values = {
        "me": me,
        "ended": str(uuid),
        "state": state,
        "finished": now.ms,
        "result": codec.encode_result(result),
        "outcome": outcome.value,
        "upload": upload,
        "ended_by": ended_by,
        "provenance": provenance.PENDING if state == "finished" else None,
    }
    ended = connection.execute(_END, values).one_or_none()
    if ended is not None:
        woken.note(What.FINISHED, job=ended.name, platform=ended.platform, uuid=uuid, outcome=outcome)
    return ended


_HEAD = sa.select(
    build.c.uuid, build.c.name, build.c.platform, build.c.started, build.c.state, build.c.finished, build.c.result,
    build.c.ended_by, build.c.secret_sha256, build.c.owner,
)  # fmt: skip
_RUNNING = _HEAD.where(build.c.state == "running").order_by(build.c.started)
_FIND_HEAD = _HEAD.where(build.c.uuid == sa.bindparam("wanted"))


def find_running(
    connection: sa.Connection, name: str | None, begin: str, on_platform: str | None
) -> tuple[BuildHead, ...]:
    """Return the running builds of a job, or else those whose uuid has that ``begin``; of one platform if that is named."""
    running = _RUNNING if on_platform is None else _RUNNING.where(build.c.platform == on_platform)
    wanted = build.c.name == name if name is not None else build.c.uuid.startswith(begin, autoescape=True)
    return tuple(map(to_head, connection.execute(running.where(wanted))))


def find(connection: sa.Connection, uuid: UUID) -> Build | None:
    """Return a build of any state."""
    row = connection.execute(_FIND, {"wanted": str(uuid)}).one_or_none()
    return None if row is None else to_build(row)


def find_head(connection: sa.Connection, uuid: UUID) -> BuildHead | None:
    """Return what is known of a build of any state besides its script."""
    row = connection.execute(_FIND_HEAD, {"wanted": str(uuid)}).one_or_none()
    return None if row is None else to_head(row)
