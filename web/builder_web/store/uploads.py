"""A build that arrived is recorded: one transaction.

Statements are made once: for a small build, to make them takes as long as to run them.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web import directory
from builder_web.store import names, newest
from builder_web.store.records import NewBuild, result_to_row, to_row
from builder_web.store.schema import artifact, binary, build, job, job_tag, received, tag


def _id_of(table: sa.TableClause, column: str) -> sa.Executable:
    """Return a statement that gives the id of a name, which is added if it is new."""
    added = insert(table).values({column: sa.bindparam("name")})
    known = added.on_conflict_do_update(index_elements=[column], set_={column: added.excluded[column]})
    return known.returning(table.c.id)


_find_job_of = (
    sa.select(job.c.name)
    .select_from(build.join(job, job.c.id == build.c.job))
    .where(build.c.uuid == sa.bindparam("uuid_"))
)
_job_id = _id_of(job, "name")
_tag_id = _id_of(tag, "tag")
_add_build = sa.insert(build).returning(build.c.id)
_add_artifacts = sa.insert(artifact)
_add_received = sa.insert(received)
_add_binary = insert(binary).on_conflict_do_nothing()
_added_tag = insert(job_tag)
_set_tag = _added_tag.on_conflict_do_update(index_elements=["tag", "job"], set_={"value": _added_tag.excluded["value"]})
_set_main_binary = (
    sa.update(build)
    .where(build.c.id == sa.bindparam("id_"))
    .values(
        main_binary=sa.select(artifact.c.id)
        .where(artifact.c.build == sa.bindparam("id_"), artifact.c.filepath == sa.bindparam("path"))
        .scalar_subquery()
    )
)
_has_content = sa.select(artifact.c.id).where(artifact.c.sha256 == sa.bindparam("digest")).limit(1)


def find_job_of(connection: sa.Connection, uuid: str) -> str | None:
    """Return the job of the build with that uuid, if there is one."""
    return connection.scalar(_find_job_of, {"uuid_": uuid})


def record(connection: sa.Connection, new: NewBuild, user: int) -> None:
    """Record a build whose files are in their places, uploaded by a user. The uuid must be new."""
    job_id = connection.scalar(_job_id, {"name": new.job})
    build_id = connection.scalar(_add_build, _build_row(new) | {"user": user, "job": job_id})
    assert isinstance(build_id, int)
    if new.artifacts:
        connection.execute(
            _add_artifacts,
            [
                {"filepath": file.path, "sha256": file.digest, "size": file.size, "build": build_id}
                for file in new.artifacts
            ],
        )
    if new.readme is not None or new.main_position:
        row = {
            "build": build_id,
            "main_position": new.main_position,
            "readme_position": new.readme.position if new.readme else None,
            "readme": new.readme.content if new.readme else None,
        }
        connection.execute(_add_received, row)
    for name, value in new.tags.items():
        tag_id = connection.scalar(_tag_id, {"name": name})
        connection.execute(_set_tag, {"tag": tag_id, "value": value, "job": job_id})
    if new.main_binary is not None:
        connection.execute(_set_main_binary, {"id_": build_id, "path": new.main_binary})
        (digest,) = (file.digest for file in new.artifacts if file.path == new.main_binary)
        connection.execute(_add_binary, {"sha256": digest, "solo5": new.solo5})
    newest.add(connection, build_id)
    names.add(connection, build_id)


def _build_row(new: NewBuild) -> dict[str, object]:
    started, finished = to_row(new.started), to_row(new.finished)
    code, message = result_to_row(new.result)
    return {
        "uuid": new.uuid,
        "start_d": started[0],
        "start_ps": started[1],
        "finish_d": finished[0],
        "finish_ps": finished[1],
        "result_code": code,
        "result_msg": message,
        "console": directory.console_path(new.job, new.uuid),
        "script": directory.script_path(new.job, new.uuid),
        "platform": new.platform,
        "main_binary": None,
        "input_id": new.input_id,
    }


def has_content(connection: sa.Connection, digest: bytes) -> bool:
    """Return whether a build has an artifact with that SHA-256."""
    return connection.scalar(_has_content, {"digest": digest}) is not None
