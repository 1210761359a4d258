"""A build that arrived is recorded: one transaction.

Its statements are made once: making them takes longer than SQLite does for what they say.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web import directory
from builder_web.store import consoles, names, summaries
from builder_web.store.records import NewBuild, result_to_row, to_row
from builder_web.store.schema import artifact, binary, build, job, job_tag, received, tag

_KEY: Any = sa.bindparam("key")
_JOB: Any = sa.bindparam("job_id")

_FIND = sa.select(job.c.name).select_from(build.join(job, job.c.id == build.c.job)).where(build.c.uuid == _KEY)
_FIND_JOB = sa.select(job.c.id).where(job.c.name == _KEY)
_ADD_JOB = insert(job).values(name=_KEY).on_conflict_do_nothing()  # as the original, which so leaves ids out
_COLUMNS = (
    *("uuid", "start_d", "start_ps", "finish_d", "finish_ps", "result_code", "result_msg", "console", "script"),
    *("platform", "main_binary", "user", "job", "input_id"),
)
_ADD_BUILD = sa.insert(build).values({name: sa.bindparam(name) for name in _COLUMNS}).returning(build.c.id)
_ADD_ARTIFACT = sa.insert(artifact).values(
    {name: sa.bindparam(name) for name in ("filepath", "sha256", "size", "build")}
)
_ADD_MAIN = _ADD_ARTIFACT.returning(artifact.c.id)
_SET_MAIN = sa.update(build).where(build.c.id == _KEY).values(main_binary=sa.bindparam("main"))
_ADD_BINARY = insert(binary).values(sha256=sa.bindparam("sha256"), solo5=sa.bindparam("solo5")).on_conflict_do_nothing()
_TAGS = (
    sa.select(tag.c.tag, job_tag.c.value)
    .select_from(job_tag.join(tag, tag.c.id == job_tag.c.tag))
    .where(job_tag.c.job == _JOB)
)
_ADD_TAG = insert(tag).values(tag=_KEY).on_conflict_do_nothing()
_SET_TAG = (
    insert(job_tag)
    .values(tag=sa.select(tag.c.id).where(tag.c.tag == _KEY).scalar_subquery(), value=sa.bindparam("value"), job=_JOB)
    .on_conflict_do_update(index_elements=["tag", "job"], set_={"value": sa.bindparam("value")})
)
_HAS_CONTENT = sa.select(artifact.c.id).where(artifact.c.sha256 == _KEY).limit(1)


def find_job_of(connection: sa.Connection, uuid: str) -> str | None:
    """Return the job of the build with that uuid, if there is one."""
    return connection.scalar(_FIND, {"key": uuid})


def record(connection: sa.Connection, new: NewBuild, user: int) -> None:
    """Record a build whose files are in their places, uploaded by a user. The uuid must be new."""
    connection.execute(_ADD_JOB, {"key": new.job})
    job_id = connection.scalar(_FIND_JOB, {"key": new.job})
    assert isinstance(job_id, int)
    started, finished = to_row(new.started), to_row(new.finished)
    code, message = result_to_row(new.result)
    values = (
        *(new.uuid, *started, *finished, code, message),
        *(directory.console_path(new.job, new.uuid), directory.script_path(new.job, new.uuid)),
        *(new.platform, None, user, job_id, new.input_id),
    )
    build_id = connection.scalar(_ADD_BUILD, dict(zip(_COLUMNS, values, strict=True)))
    assert isinstance(build_id, int)
    rows = [
        {"filepath": file.path, "sha256": file.digest, "size": file.size, "build": build_id} for file in new.artifacts
    ]
    if new.main_binary is not None:  # it is the first of the artifacts
        main = connection.scalar(_ADD_MAIN, rows.pop(0))
        connection.execute(_SET_MAIN, {"key": build_id, "main": main})
        connection.execute(_ADD_BINARY, {"sha256": new.artifacts[0].digest, "solo5": new.solo5})
    if rows:
        connection.execute(_ADD_ARTIFACT, rows)
    if new.readme is not None or new.main_position:
        connection.execute(
            sa.insert(received).values(
                build=build_id,
                main_position=new.main_position,
                readme_position=new.readme.position if new.readme else None,
                readme=new.readme.content if new.readme else None,
            )
        )
    if new.tags:
        _tag(connection, job_id, new.tags)
    consoles.keep(connection, build_id, new.console)
    summaries.add(connection, build_id, job_id, new)
    names.add(connection, build_id)


def _tag(connection: sa.Connection, job_id: Any, tags: dict[str, str]) -> None:
    before = {row.tag: row.value for row in connection.execute(_TAGS, {"job_id": job_id})}
    for name, value in tags.items():
        if before.get(name) != value:
            connection.execute(_ADD_TAG, {"key": name})
            connection.execute(_SET_TAG, {"key": name, "value": value, "job_id": job_id})


def has_content(connection: sa.Connection, digest: bytes) -> bool:
    """Return whether a build has an artifact with that SHA-256."""
    return connection.scalar(_HAS_CONTENT, {"key": digest}) is not None
