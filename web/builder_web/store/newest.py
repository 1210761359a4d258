"""The newest builds of each job on each platform, and of each output: what pages show without a look at all others."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web.store.schema import artifact, build, newest, output

# milliseconds since 1970; picoseconds since then would not fit into 64 bits
_started = sa.literal_column("build.start_d * 86400000 + build.start_ps / 1000000000", sa.Integer).label("started")


def make_anew(connection: sa.Connection, *, job: int | None = None) -> None:
    """Look at all builds, or at all of one job."""
    failed = build.c.main_binary.is_(None)
    # SQLite gives the other columns of the row that has the maximum; of equal ones the last that it meets
    by_place = sa.select(build.c.job, build.c.platform, failed, build.c.id, sa.func.max(_started)).group_by(
        build.c.job, build.c.platform, failed
    )
    by_output = (
        sa.select(build.c.job, build.c.platform, artifact.c.sha256, build.c.id, sa.func.max(_started), sa.func.count())
        .select_from(build.join(artifact, artifact.c.id == build.c.main_binary))
        .group_by(build.c.job, build.c.platform, artifact.c.sha256)
    )
    for table, everything, columns in (
        (newest, by_place, ["job", "platform", "failed", "build", "started"]),
        (output, by_output, ["job", "platform", "sha256", "build", "started", "alike"]),
    ):
        found = everything if job is None else everything.where(build.c.job == job)
        gone = sa.delete(table) if job is None else sa.delete(table).where(table.c.job == job)
        connection.execute(gone)
        connection.execute(sa.insert(table).from_select(columns, found))


_KEY: Any = sa.bindparam("key")
_THIS = build.alias("this")
_STARTED = sa.literal_column("this.start_d * 86400000 + this.start_ps / 1000000000", sa.Integer)


def _if_newer(table: sa.Table, added: Any, name: str) -> Any:
    """Return the value of a column that is kept: that of the build that began later."""
    return sa.case((added.started >= table.c.started, added[name]), else_=table.c[name])


_ADD = insert(newest).from_select(
    ["job", "platform", "failed", "build", "started"],
    sa.select(_THIS.c.job, _THIS.c.platform, _THIS.c.main_binary.is_(None), _THIS.c.id, _STARTED).where(
        _THIS.c.id == _KEY
    ),
)
_ADD = _ADD.on_conflict_do_update(
    index_elements=["job", "platform", "failed"],
    set_={name: _if_newer(newest, _ADD.excluded, name) for name in ("build", "started")},
)
_ADD_OUTPUT = insert(output).from_select(
    ["job", "platform", "sha256", "build", "started", "alike"],
    sa.select(_THIS.c.job, _THIS.c.platform, artifact.c.sha256, _THIS.c.id, _STARTED, sa.literal(1))
    .select_from(_THIS.join(artifact, artifact.c.id == _THIS.c.main_binary))
    .where(_THIS.c.id == _KEY),
)
_ADD_OUTPUT = _ADD_OUTPUT.on_conflict_do_update(
    index_elements=["job", "platform", "sha256"],
    set_={
        "alike": output.c.alike + 1,
        **{name: _if_newer(output, _ADD_OUTPUT.excluded, name) for name in ("build", "started")},
    },
)


def add(connection: sa.Connection, build_id: int) -> None:
    """Note a build that was recorded just now: it is the newest unless one that began later is there."""
    connection.execute(_ADD, {"key": build_id})
    connection.execute(_ADD_OUTPUT, {"key": build_id})
