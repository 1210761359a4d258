"""The newest builds of each job on each platform: what the first page shows, without a look at all others."""

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


def _started_of(build_id: sa.ColumnElement[int]) -> sa.ScalarSelect[int]:
    return sa.select(_started).where(build.c.id == build_id).scalar_subquery()


_KEY = ["job", "platform", "failed"]
_added = insert(newest).from_select(
    [*_KEY, "build"],
    sa.select(build.c.job, build.c.platform, build.c.main_binary.is_(None), build.c.id).where(
        build.c.id == sa.bindparam("id_")
    ),
)
_add = _added.on_conflict_do_update(
    index_elements=_KEY,
    set_={"build": _added.excluded["build"]},
    # the other may be gone, by another program
    where=_started_of(_added.excluded["build"]) >= sa.func.coalesce(_started_of(newest.c.build), -(2**62)),
)


def add(connection: sa.Connection, build_id: int) -> None:
    """Note a build that was recorded just now: it is the newest unless one that began later is there."""
    connection.execute(_add, {"id_": build_id})
