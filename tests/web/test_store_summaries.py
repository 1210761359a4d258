"""What lists say of builds: kept as they come and go, the same as when it is made anew, and read without a look at all."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from attrs import evolve
from sites import NOW, make_directory, open_site

from builder.model import Exited, Instant
from builder_web.console_index import ConsoleIndexer
from builder_web.directory import DataDirectory
from builder_web.store import builds, opening, removal, schema, summaries, uploads
from builder_web.store.jobs import AllJobs
from builder_web.store.records import NewBuild, StoredArtifact

TABLES = (schema.listed, schema.place, schema.output)


def some_builds(count: int, *, seed: int) -> list[NewBuild]:
    """Return builds of some jobs on some platforms in no order, some at the same time, some of them failed."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        digest = hashlib.sha256(b"%d" % chance.randrange(3)).digest()
        succeeded = chance.random() < 0.7
        started = Instant(NOW.ms - chance.randrange(40) * 3_600_000)
        found.append(
            NewBuild(
                uuid=str(UUID(int=number)),
                job=f"job-{chance.randrange(2)}",
                platform=chance.choice(["debian-12", "freebsd-14"]),
                started=started,
                finished=started,
                result=Exited(code=0),
                console=ConsoleIndexer().finish(),
                artifacts=(StoredArtifact(path="bin/x", digest=digest, size=1),) if succeeded else (),
                main_binary="bin/x" if succeeded else None,
                input_id=chance.choice([None, b"1", b"2"]),
                tags={},
                solo5="{}",
            )
        )
    return found


def rows(connection: sa.Connection) -> dict[str, list[Any]]:
    return {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in TABLES}


def made_anew(connection: sa.Connection) -> dict[str, list[Any]]:
    for table in TABLES:
        connection.execute(sa.delete(table))
    summaries.catch_up(connection)
    return rows(connection)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return make_directory(tmp_path / "data")


@pytest.mark.parametrize("seed", range(5))
def test_as_builds_come_and_go_it_is_what_it_would_be_made_anew(directory: DataDirectory, seed: int) -> None:
    with opening.writing(directory.database) as connection:
        for build in some_builds(90, seed=seed):
            uploads.record(connection, build, 1)
        kept = rows(connection)
        assert len(kept["web_place"]) == 4
        assert kept == made_anew(connection)
        removal.remove(connection, builds.all_builds(connection)[::3])
        kept = rows(connection)
        assert kept == made_anew(connection)
        removal.remove(connection, builds.all_builds(connection, job_names=["job-0"]))
        kept = rows(connection)
        assert len(kept["web_place"]) == 2
        assert kept == made_anew(connection)


def test_what_another_program_added_and_removed_is_caught_up_with(directory: DataDirectory) -> None:
    with opening.writing(directory.database) as connection:
        for build in some_builds(20, seed=0):
            uploads.record(connection, build, 1)
    with opening.writing(directory.database) as connection:
        connection.exec_driver_sql("UPDATE build SET main_binary = NULL WHERE id % 4 = 0")
        connection.exec_driver_sql("DELETE FROM build_artifact WHERE build % 4 = 0")
        connection.exec_driver_sql("DELETE FROM build WHERE id % 4 = 0")
        connection.exec_driver_sql(
            "INSERT INTO build (uuid, start_d, start_ps, finish_d, finish_ps, result_code, console, script, platform, "
            "user, job) SELECT 'new ' || id, 30000, 0, 30000, 0, 1, console, script, '', user, job FROM build LIMIT 5"
        )
    with opening.writing(directory.database) as connection:
        kept = rows(connection)
        assert sum("new" in one.uuid for one in builds.lately(connection, **LATELY)) == 5
        assert kept == made_anew(connection)


LATELY: Any = {"job_name": None, "platform": None, "only_failed": True, "count": 50}


def test_states_are_those_of_the_last_builds() -> None:
    newest_first = [b"a", b"b", None, b"a", b"a", None]
    assert summaries.states(newest_first) == "fnsfnn"
    assert summaries.states([b"a"] * 31) == "s" * 30
    assert summaries.states([]) == ""


def test_of_all_jobs_those_are_read_again_that_changed(directory: DataDirectory) -> None:
    first, *others = some_builds(90, seed=2)
    with opening.writing(directory.database) as connection:
        for build in others:
            uploads.record(connection, build, 1)
        all_jobs = AllJobs()
        before = {job.name: job for job in all_jobs.read(connection)}
        assert list(before) == ["job-0", "job-1"]
        uploads.record(connection, evolve(first, job="job-1", started=NOW), 1)
        after = {job.name: job for job in all_jobs.read(connection)}
        assert after["job-0"] is before["job-0"]
        assert after["job-1"] != before["job-1"]
        assert list(after.values()) == AllJobs().read(connection)
        connection.exec_driver_sql("UPDATE build SET main_binary = NULL")
        connection.exec_driver_sql("DELETE FROM build_artifact")
        connection.exec_driver_sql("DELETE FROM build")
        assert not [one for job in all_jobs.read(connection) for one in job.newest if one.build or one.failed]


async def test_no_list_sorts_all_builds(directory: DataDirectory) -> None:
    async with open_site(directory) as site:
        for build in some_builds(20, seed=1):
            await site.store.database.write(partial(uploads.record, new=build, user=1))
        with statements() as seen:
            for target in (
                *("/", "/all-builds", "/failed-builds", "/failed-builds?platform=debian-12", "/builds.atom"),
                *("/failed.atom", "/job/job-0", "/job/job-0?platform=debian-12", "/job/job-0/builds.atom"),
                *("/job/job-0/status.svg", "/job/job-0/reproducibility.svg"),
            ):
                assert (await site.client.get(target)).status == 200, target
    assert len(seen) > 15
    with opening.reading(directory.database) as connection:
        for statement, parameters in seen.items():
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            for _, parent, _, step in plan:
                assert not step.startswith("SCAN build"), statement
                # the few builds that a subquery has found are sorted outside of it
                assert not (parent and step.startswith("USE TEMP B-TREE FOR ORDER BY")), statement


@contextmanager
def statements() -> Iterator[dict[str, Any]]:
    """Return the queries of the program meanwhile, with parameters of each."""
    seen: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen[statement] = parameters

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
