"""The newest builds of each job on each platform: what the first page shows, without a look at all others."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web.store.schema import build, newest

# milliseconds since 1970; picoseconds since then would not fit into 64 bits
_started = sa.literal_column("build.start_d * 86400000 + build.start_ps / 1000000000", sa.Integer).label("started")


def make_anew(connection: sa.Connection, *, job: int | None = None) -> None:
    """Look at all builds, or at all of one job."""
    failed = build.c.main_binary.is_(None)
    # SQLite gives the other columns of the row that has the maximum; of equal ones the last that it meets
    found = sa.select(build.c.job, build.c.platform, failed, build.c.id, sa.func.max(_started)).group_by(
        build.c.job, build.c.platform, failed
    )
    gone = sa.delete(newest)
    if job is not None:
        found = found.where(build.c.job == job)
        gone = gone.where(newest.c.job == job)
    connection.execute(gone)
    connection.execute(
        sa.insert(newest).from_select(
            ["job", "platform", "failed", "build"],
            sa.select(*list(found.subquery().c)[:4]),
        )
    )


_KEY: Any = sa.bindparam("key")
_THIS = build.alias("this")
_OTHERS = build.alias("other")
_KEPT = newest.alias("kept")
_is_later = sa.tuple_(_OTHERS.c.start_d, _OTHERS.c.start_ps) > sa.tuple_(_THIS.c.start_d, _THIS.c.start_ps)
_IS_OLDER = (
    sa.exists()
    .select_from(_KEPT.join(_OTHERS, _OTHERS.c.id == _KEPT.c.build))
    .where(
        _KEPT.c.job == _THIS.c.job,
        _KEPT.c.platform == _THIS.c.platform,
        _KEPT.c.failed == _THIS.c.main_binary.is_(None),
        _is_later,
    )
)
_ADD = (
    insert(newest)
    .prefix_with("OR REPLACE")
    .from_select(
        ["job", "platform", "failed", "build"],
        sa.select(_THIS.c.job, _THIS.c.platform, _THIS.c.main_binary.is_(None), _THIS.c.id).where(
            _THIS.c.id == _KEY, ~_IS_OLDER
        ),
    )
)


def add(connection: sa.Connection, build_id: int) -> None:
    """Note a build that was recorded just now: it is the newest unless one that began later is there."""
    connection.execute(_ADD, {"key": build_id})
