"""What is drained: the server, platforms and workers that get no job. Each function is a step."""

from collections.abc import Mapping

import sqlalchemy as sa

from builder.extension.halting import MAX_HALTS, HaltState, Scope, Target
from builder.extension.watching import What
from builder.model import Instant
from builder_server.errors import CommandRefused
from builder_server.store import queues
from builder_server.store.records import known_as
from builder_server.store.schema import build, halt, server
from builder_server.store.waking import Woken, targets_of

_ALL = sa.select(halt).order_by(halt.c.since, halt.c.scope, halt.c.name)
_key = sa.tuple_(halt.c.scope, halt.c.name)
_ANY_OF = sa.select(sa.literal(1)).where(_key.in_(sa.bindparam("keys", expanding=True))).limit(1)
_IS_SERVER = sa.select(sa.exists().where(server.c.name == sa.bindparam("name")))
_RUNNING = sa.select(build.c.owner, build.c.platform, build.c.worker, build.c.worker_name).where(
    build.c.state == "running"
)


def find(connection: sa.Connection) -> dict[Target, HaltState]:
    """Return all that is drained, the oldest first."""
    found = (
        HaltState(
            target=Target(scope=Scope(row.scope), name=row.name),
            since=Instant(row.since),
            by=row.set_by,
            reason=row.reason,
            until=None if row.until is None else Instant(row.until),
        )
        for row in connection.execute(_ALL)
    )
    return {each.target: each for each in found}


def applies(connection: sa.Connection, me: str, platform: str, worker: str) -> bool:
    """Return whether a worker of a platform gets no job at a server."""
    keys = [(each.scope.value, each.name) for each in targets_of(me, platform, worker)]
    return connection.scalar(_ANY_OF, {"keys": keys}) is not None


def put(
    connection: sa.Connection,
    woken: Woken,
    target: Target,
    now: Instant,
    by: str,
    reason: str | None,
    until: Instant | None,
) -> tuple[HaltState, bool]:
    """Drain something; return how that is from now on, and whether it is new. What is drained gets what is given.

    Raises CommandRefused.
    """
    if target.scope is Scope.PLATFORM and queues.is_dropped(connection, target.name) is not False:
        raise CommandRefused(f"unknown platform {target.name}")
    if target.scope is Scope.SERVER and target.name and not connection.scalar(_IS_SERVER, {"name": target.name}):
        raise CommandRefused(f"unknown server {target.name}")
    there = find(connection)
    before = there.get(target)
    if before is None and len(there) >= MAX_HALTS:
        raise CommandRefused(f"{MAX_HALTS} workers and platforms are drained already; resume those that are no more")
    if before is not None and reason is None and until is None:
        return before, False
    values = {
        "since": now.ms if before is None else before.since.ms,
        "set_by": by,
        "reason": reason if reason is not None else before.reason if before else "",
        "until": until.ms if until else before.until.ms if before and before.until else None,
    }
    _delete(connection, target)
    connection.execute(sa.insert(halt), {"scope": target.scope.value, "name": target.name} | values)
    woken.schedule = until is not None
    return _announced(connection, woken, target, What.DRAINED)[target], before is None


def lift(connection: sa.Connection, woken: Woken, target: Target) -> None:
    """Hand out jobs there again. Raises CommandRefused where it is not drained."""
    if not _delete(connection, target):
        raise CommandRefused(f"{target} is not drained")
    _announced(connection, woken, target, What.RESUMED)


def expire(connection: sa.Connection, woken: Woken, now: Instant) -> Instant | None:
    """Lift what was for a time that is over; return when the next such time ends."""
    there = find(connection)
    for target, each in there.items():
        if each.until is not None and each.until <= now:
            _delete(connection, target)
            _announced(connection, woken, target, What.RESUMED)
    return min((each.until for each in there.values() if each.until is not None and each.until > now), default=None)


def count_running(connection: sa.Connection, target: Target) -> int:
    """Return how many builds run there."""
    rows = connection.execute(_RUNNING)
    return sum(
        target in targets_of(row.owner or "", row.platform, known_as(row.worker, row.worker_name)) for row in rows
    )


def _delete(connection: sa.Connection, target: Target) -> bool:
    where = halt.c.scope == target.scope.value, halt.c.name == target.name
    return connection.execute(sa.delete(halt).where(*where)).rowcount == 1


def _announced(connection: sa.Connection, woken: Woken, target: Target, what: What) -> Mapping[Target, HaltState]:
    woken.halts = find(connection)
    woken.note(what, platform=target.name if target.scope is Scope.PLATFORM else None)
    return woken.halts
