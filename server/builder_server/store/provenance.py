"""What is to be signed of builds, and what their workers have said of them. Each function is a step."""

import json
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from builder import codec
from builder.model import Instant
from builder_server.store.ownership import IS_MINE
from builder_server.store.records import Signable
from builder_server.store.schema import build

PENDING, SIGNED = "pending", "signed"

PAGE = 50
"""Builds that are signed, and made durable, together."""

_UNSIGNED = (
    sa.select(build.c.uuid)
    .where(build.c.provenance == PENDING, IS_MINE, build.c.uuid.not_in(sa.bindparam("besides", expanding=True)))
    .order_by(build.c.finished)
    .limit(PAGE)
)
_FIND = sa.select(build).where(
    build.c.uuid == sa.bindparam("wanted"), build.c.provenance.is_not(None), build.c.state == "finished"
)
_NOTE = (
    sa.update(build)
    .where(build.c.uuid == sa.bindparam("noted"), build.c.provenance.is_not(None))
    .values(provenance=sa.bindparam("state_of"), size=None)  # there is one more file
)
_NOTE_FACTS = (
    sa.update(build)
    .where(build.c.uuid == sa.bindparam("told_of"), build.c.state == "running")
    .values(facts=sa.bindparam("told"))
)


def unsigned(connection: sa.Connection, me: str, besides: Collection[UUID]) -> Sequence[UUID]:
    """Return builds that are to be signed, those first that ended first."""
    found = connection.scalars(_UNSIGNED, {"me": me, "besides": [str(uuid) for uuid in besides]})
    return [UUID(uuid) for uuid in found]


def find(connection: sa.Connection, uuid: UUID) -> Signable | None:
    """Return what is known of a build that is signed, or is to be; None for any other."""
    row = connection.execute(_FIND, {"wanted": str(uuid)}).one_or_none()
    if row is None:
        return None
    return Signable(
        uuid=uuid,
        name=row.name,
        platform=row.platform,
        script=row.script,
        started=Instant(row.started),
        finished=Instant(row.finished),
        result=codec.decode_result(row.result),
        ended_by=row.ended_by,
        template=row.template,
        opam_package=row.opam_package,
        time_limit=row.time_limit,
        max_silent=row.max_silent,
        worker=row.worker,
        worker_name=row.worker_name,
        facts=json.loads(row.facts or "{}"),
    )


def note(connection: sa.Connection, signed: Collection[UUID], gone: Collection[UUID]) -> None:
    """Note that builds are signed, and that of others nothing is left that could be."""
    values: list[dict[str, str | None]] = [{"noted": str(uuid), "state_of": SIGNED} for uuid in signed]
    values += [{"noted": str(uuid), "state_of": None} for uuid in gone]
    if values:
        connection.execute(_NOTE, values)


def note_facts(connection: sa.Connection, uuid: UUID, facts: Mapping[str, str]) -> None:
    """Note what the worker of a build has said of it, if that runs."""
    connection.execute(_NOTE_FACTS, {"told_of": str(uuid), "told": json.dumps(dict(facts))})
