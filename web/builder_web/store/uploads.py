"""A build that arrived is recorded: one transaction."""

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from builder_web import directory
from builder_web.store import newest
from builder_web.store.records import NewBuild, result_to_row, to_row
from builder_web.store.schema import artifact, binary, build, job, job_tag, received, tag


def find_job_of(connection: sa.Connection, uuid: str) -> str | None:
    """Return the job of the build with that uuid, if there is one."""
    query = sa.select(job.c.name).select_from(build.join(job, job.c.id == build.c.job))
    return connection.scalar(query.where(build.c.uuid == uuid))


def record(connection: sa.Connection, new: NewBuild, user: int) -> None:
    """Record a build whose files are in their places, uploaded by a user. The uuid must be new."""
    connection.execute(insert(job).values(name=new.job).on_conflict_do_nothing())
    job_id = connection.scalar(sa.select(job.c.id).where(job.c.name == new.job))
    started, finished = to_row(new.started), to_row(new.finished)
    code, message = result_to_row(new.result)
    build_id = connection.scalar(
        sa.insert(build)
        .values(
            uuid=new.uuid,
            start_d=started[0],
            start_ps=started[1],
            finish_d=finished[0],
            finish_ps=finished[1],
            result_code=code,
            result_msg=message,
            console=directory.console_path(new.job, new.uuid),
            script=directory.script_path(new.job, new.uuid),
            platform=new.platform,
            main_binary=None,
            user=user,
            job=job_id,
            input_id=new.input_id,
        )
        .returning(build.c.id)
    )
    assert isinstance(build_id, int)
    if new.artifacts:
        connection.execute(
            sa.insert(artifact),
            [
                {"filepath": file.path, "sha256": file.digest, "size": file.size, "build": build_id}
                for file in new.artifacts
            ],
        )
    if new.readme is not None or new.main_position:
        connection.execute(
            sa.insert(received).values(
                build=build_id,
                main_position=new.main_position,
                readme_position=new.readme.position if new.readme else None,
                readme=new.readme.content if new.readme else None,
            )
        )
    for name, value in new.tags.items():
        connection.execute(insert(tag).values(tag=name).on_conflict_do_nothing())
        tag_id = connection.scalar(sa.select(tag.c.id).where(tag.c.tag == name))
        connection.execute(
            insert(job_tag)
            .values(tag=tag_id, value=value, job=job_id)
            .on_conflict_do_update(index_elements=["tag", "job"], set_={"value": value})
        )
    if new.main_binary is not None:
        main = connection.execute(
            sa.select(artifact.c.id, artifact.c.sha256).where(
                artifact.c.build == build_id, artifact.c.filepath == new.main_binary
            )
        ).one()
        connection.execute(sa.update(build).where(build.c.id == build_id).values(main_binary=main.id))
        connection.execute(insert(binary).values(sha256=main.sha256, solo5=new.solo5).on_conflict_do_nothing())
    newest.add(connection, build_id)


def has_content(connection: sa.Connection, digest: bytes) -> bool:
    """Return whether a build has an artifact with that SHA-256."""
    return connection.scalar(sa.select(artifact.c.id).where(artifact.c.sha256 == digest).limit(1)) is not None
