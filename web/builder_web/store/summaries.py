"""What lists say of builds, kept beside these whatever program adds and removes them.

``web_build`` has all builds; what is said of a job on a platform, and of an output, is made of its rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web.store.records import NewBuild, to_row
from builder_web.store.schema import artifact, build, listed, output, place

PAST = 30
"""Builds whose states are kept of a job on a platform, and shown in a row."""

SAME, NEW, FAILED = "snf"
"""The state of a build: the output of the last successful one before, another output, none."""

_KEY: Any = sa.bindparam("key")
_JOB: Any = sa.bindparam("job_id")
_PLATFORM: Any = sa.bindparam("on")
STARTED = sa.literal_column("web_build.start_d * 86400000 + web_build.start_ps / 1000000000", sa.Integer)
"""When a build of ``web_build`` began, in milliseconds since 1970: picoseconds since then would not fit into 64 bits."""

_NEWEST_FIRST = (listed.c.start_d.desc(), listed.c.start_ps.desc(), listed.c.build.desc())

_builds = sa.select(
    *(build.c.id, build.c.job, build.c.platform, build.c.start_d, build.c.start_ps),
    *(build.c.main_binary.is_(None), artifact.c.sha256, build.c.input_id),
).select_from(build.outerjoin(artifact, artifact.c.id == build.c.main_binary))
_columns = [column.name for column in listed.c]
_ADD = sa.insert(listed).values({name: sa.bindparam(name) for name in _columns})
_HERE = (listed.c.job == _JOB, listed.c.platform == _PLATFORM)
_LAST = sa.select(listed.c.build, listed.c.output).where(*_HERE).order_by(*_NEWEST_FIRST).limit(PAST + 1)
_BUILT = sa.select(listed.c.build).where(*_HERE, listed.c.output.is_not(None)).order_by(*_NEWEST_FIRST).limit(1)
_place = insert(place).values(
    job=_JOB, platform=_PLATFORM, newest=sa.bindparam("newest"), built=sa.bindparam("built"), past=sa.bindparam("past")
)
_SET_PLACE = _place.on_conflict_do_update(
    index_elements=["job", "platform"],
    set_={name: _place.excluded[name] for name in ("newest", "built", "past")},
)


_output = insert(output).values(
    **{name: sa.bindparam(name) for name in ("sha256", "build", "started")}, job=_JOB, platform=_PLATFORM, alike=1
)
_is_newer = _output.excluded.started >= output.c.started
_ADD_OUTPUT = _output.on_conflict_do_update(
    index_elements=["job", "platform", "sha256"],
    set_={
        "alike": output.c.alike + 1,
        **{name: sa.case((_is_newer, _output.excluded[name]), else_=output.c[name]) for name in ("build", "started")},
    },
)


def states(newest_first: Sequence[bytes | None]) -> str:
    """Return the states of builds by the SHA-256 of their outputs, the oldest first: of one more than PAST at most."""
    found = []
    before: bytes | None = None
    for digest in reversed(newest_first):
        found.append(FAILED if digest is None else SAME if digest == before else NEW)
        before = digest or before
    return "".join(found[-PAST:])


def add(connection: sa.Connection, build_id: int, job: int, new: NewBuild) -> None:
    """Note a build that was recorded just now."""
    start_d, start_ps = to_row(new.started)
    digest = new.artifacts[0].digest if new.main_binary is not None else None
    row = (build_id, job, new.platform, start_d, start_ps, digest is None, digest, new.input_id)
    connection.execute(_ADD, dict(zip(_columns, row, strict=True)))
    _set_place(connection, job, new.platform)
    if digest is not None:
        one = {"job_id": job, "sha256": digest, "build": build_id, "started": new.started.ms}
        connection.execute(_ADD_OUTPUT, [{**one, "on": platform} for platform in (new.platform, "")])


def remove(connection: sa.Connection, build_ids: Sequence[int]) -> None:
    """Forget builds; what is said of their jobs is to be made anew."""
    connection.execute(sa.delete(listed).where(listed.c.build.in_(build_ids)))


def catch_up(connection: sa.Connection) -> None:
    """Note what another program has added, and forget what it has removed: ids are never given twice."""
    last = connection.scalar(sa.select(sa.func.max(listed.c.build))) or 0
    connection.execute(sa.insert(listed).from_select(_columns, _builds.where(build.c.id > last)))
    job_ids = sa.select(listed.c.job).distinct()
    changed = set(connection.scalars(job_ids.where(listed.c.build > last)))
    known, there = (connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in (listed, build))
    if known != there:
        is_gone = listed.c.build.not_in(sa.select(build.c.id))
        changed |= set(connection.scalars(job_ids.where(is_gone)))
        connection.execute(sa.delete(listed).where(is_gone))
    make_anew(connection, changed)


def make_anew(connection: sa.Connection, jobs: Iterable[int]) -> None:
    """Say anew of jobs what their builds say."""
    for job in jobs:
        for table in (place, output):
            connection.execute(sa.delete(table).where(table.c.job == _JOB), {"job_id": job})
        for statement in _SET_OUTPUTS:
            connection.execute(statement, {"job_id": job})
        for platform in list(connection.scalars(_PLATFORMS, {"job_id": job})):
            _set_place(connection, job, platform)


_PLATFORMS = sa.select(listed.c.platform).distinct().where(listed.c.job == _JOB)


def _set_place(connection: sa.Connection, job: int, platform: str) -> None:
    here = {"job_id": job, "on": platform}
    last = connection.execute(_LAST, here).all()
    built = next((one for one, digest in last if digest is not None), None) or connection.scalar(_BUILT, here)
    past = states([digest for _, digest in last])
    connection.execute(_SET_PLACE, {**here, "newest": last[0].build, "built": built, "past": past})


def _outputs(*which: Any, everywhere: bool) -> Any:
    """Return a statement that counts the outputs of builds on their platforms, or ``everywhere``."""
    platform = _EVERYWHERE if everywhere else listed.c.platform
    alike: Any = {"partition_by": (platform, listed.c.output)}
    ranked = (
        sa.select(
            *(listed.c.job, platform.label("platform"), listed.c.output, listed.c.build, STARTED.label("started")),
            sa.func.count().over(**alike).label("alike"),
            sa.func.row_number().over(**alike, order_by=_NEWEST_FIRST).label("rank"),
        )
        .where(listed.c.output.is_not(None), sa.true() if everywhere else platform != "", *which)
        .subquery()
    )
    *columns, rank = ranked.c
    counted = sa.select(*columns).where(rank == 1)
    return insert(output).from_select(["job", "platform", "sha256", "build", "started", "alike"], counted)


_EVERYWHERE: Any = sa.literal_column("''", sa.Text)
_SET_OUTPUTS = [_outputs(listed.c.job == _JOB, everywhere=everywhere) for everywhere in (False, True)]
