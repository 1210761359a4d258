"""builder-server's database: what the migrations make, of nothing and of the databases of former releases."""

import inspect
import sqlite3
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import forked
import pytest
import sqlalchemy as sa
import trio
from alembic import command
from alembic.config import Config
from attrs import evolve
from farm import DEADLINE, ROOT, environment, start_server
from scripted import build, do, info, schedule
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from stores import LOST, NOW, opened, running, script, take, uuid

from builder import codec
from builder.extension.applying import Apply
from builder.extension.builds import HistoryPlace, ShowHistory
from builder.extension.halting import SERVER
from builder.extension.schedule import ChangeJob
from builder.extension.uploads import ListUploads, UploadPlace, UploadState
from builder.extension.watching import Look
from builder.model import (
    Aborted,
    DroppedPlatform,
    Exited,
    Instant,
    OrbBuildJob,
    Period,
    Queue,
    Result,
    ScheduleItem,
    Signalled,
)
from builder.planning import Cron, JobOptions, JobReference
from builder_client import past
from builder_server.administration import REVISIONS
from builder_server.names import DATABASE
from builder_server.store import AfterLoss, Attempted, Build, OldBuild, ServerIdentity, Store, StoredArtifact, Timing
from builder_server.store.schema import metadata

VERSIONS = ROOT / "server/builder_server/store/migrations/versions"


def migrate(path: Path, revision: str) -> None:
    """Bring a database to a revision, up or down."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "builder_server.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        found = connection.dialect.has_table(connection, "alembic_version")
        current = connection.exec_driver_sql("select version_num from alembic_version").scalar() if found else ""
        (command.downgrade if current and current > revision else command.upgrade)(config, revision)
    engine.dispose()


def shape(path: Path) -> dict[str, object]:
    engine = sa.create_engine(f"sqlite:///{path}")
    inspector = sa.inspect(engine)
    found: dict[str, object] = {}
    for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
        columns = [
            (column["name"], str(column["type"]), column["nullable"], column["default"])
            for column in inspector.get_columns(table)
        ]
        found[table] = (
            sorted(columns),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((index["name"] or "", tuple(index["column_names"])) for index in inspector.get_indexes(table)),
            sorted(constraint["sqltext"] for constraint in inspector.get_check_constraints(table)),
            sorted(tuple(unique["column_names"]) for unique in inspector.get_unique_constraints(table)),
            sorted((key["referred_table"], str(key["options"])) for key in inspector.get_foreign_keys(table)),
        )
    engine.dispose()
    return found


def test_the_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    Store.open(tmp_path / "migrated").close()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/made")
    metadata.create_all(engine)
    engine.dispose()
    assert shape(tmp_path / "migrated") == shape(tmp_path / "made")


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_the_way_back(tmp_path: Path, revision: str) -> None:
    migrate(tmp_path / "before", revision)
    Store.open(tmp_path / "after").close()
    migrate(tmp_path / "after", revision)
    assert shape(tmp_path / "before") == shape(tmp_path / "after")


OLD = """
insert into platform values ('p1', 0), ('p2', 1);
insert into job (id, name, platform, script, period, next_run) values
    (1, 'a', 'p1', x'01', 'daily', {now}), (2, 'b', 'p1', x'02', 'daily', {now}), (3, 'c', 'p1', x'03', 'weekly', {far});
insert into queue values (1, 'p1', 2, 1, 0);
insert into build (uuid, job_id, name, platform, script, state, losses, started, finished, result, upload) values
    ('{one}', 1, 'a', 'p1', x'01', 'running', 1, {now}, null, null, null),
    ('{two}', 3, 'c', 'p1', x'03', 'running', 0, {now}, null, null, null),
    ('{three}', 1, 'a', 'p1', x'01', 'finished', 0, {now}, {now}, null, 'pending');
"""


JOB = evolve(script("a"), script=b"\x01")


async def test_a_database_of_the_last_release_with_builds_that_run(tmp_path: Path) -> None:
    path = tmp_path / "db"
    far = NOW.ms + 10**11
    await trio.to_thread.run_sync(migrate, path, "0002")
    connection = sqlite3.connect(path)
    connection.executescript(OLD.format(now=NOW.ms, far=far, one=UUID(int=1), two=UUID(int=2), three=UUID(int=3)))
    connection.close()
    async with opened(tmp_path) as store:
        assert await running(store) == (uuid(1), uuid(2))
        assert await store.find_build(uuid(1)) == Build(uuid=uuid(1), job=JOB, started=NOW, losses=1)
        assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
        assert await store.finish(uuid(2), NOW, Exited(code=0))
        assert (await take(store, 4)).job == JOB
        (found,) = (await store.info()).queues
        assert [job.name for job in found.jobs] == ["b"]
        assert await running(store) == (uuid(4),)
        # who planned these runs is unknown: they stay
        await store.queue_due(NOW)
        runs = {item.job.name: item.next.ms for item in (await store.info()).schedule}
        assert runs["c"] == far
        periods = [each.options.period for each in await store.jobs(None)]
        assert periods == [Period.DAILY, Period.DAILY, Period.WEEKLY]
    connection = sqlite3.connect(path)
    assert connection.execute("select uuid, owner from build where state = 'running'").fetchall() == [
        (str(uuid(4)), "main")
    ]
    connection.close()


RESULTS: dict[Result, str] = {
    Exited(code=0): "succeeded",
    Exited(code=1): "failed",
    Signalled(signal=-7): "failed",
    Aborted(message="timeout"): "aborted",
    Aborted(message="worker lost"): "lost",
}


async def test_builds_of_the_last_release_have_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await trio.to_thread.run_sync(migrate, path, "0003")
    connection = sqlite3.connect(path)
    connection.executemany(
        "insert into build (uuid, job_id, name, platform, script, state, losses, started, finished, result)"
        " values (?, 1, 'a', 'p1', x'01', 'finished', 0, ?, ?, ?)",
        [(str(UUID(int=n)), NOW.ms + n, NOW.ms + n, codec.encode_result(result)) for n, result in enumerate(RESULTS)],
    )
    connection.commit()
    connection.close()
    async with opened(tmp_path) as store:
        found = await store.history(ShowHistory(count=9))
        assert {entry.result: entry.outcome.value for entry in found if entry.outcome} == RESULTS
        assert len(await store.history(ShowHistory(count=9, failed=True))) == 2
        assert (found[0].previous, found[0].script_changed, found[0].artifacts_changed) == (UUID(int=0), False, None)
        assert "since" not in dict(past.lines(found[0]))


async def test_a_server_goes_back_to_the_last_release_and_forward(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        done, _ = await build(server)
        busy = await trio.to_thread.run_sync(go_back, server.data_dir)
        assert busy.returncode == 3
        assert busy.stderr.startswith(f"builder-server: another server uses {server.data_dir}: stop it".encode())
    back = await trio.to_thread.run_sync(go_back, server.data_dir)
    assert (back.returncode, back.stdout, back.stderr) == (0, b"the database is at revision 0003\n", b"")
    await trio.to_thread.run_sync(migrate, tmp_path / "before", "0003")
    assert shape(server.data_dir / DATABASE) == shape(tmp_path / "before")
    async with start_server(tmp_path) as server:
        assert server.query("select uuid, outcome from build") == [(str(done), "succeeded")]
        assert [item.job.name for item in (await info(server)).schedule] == ["a"]


def go_back(data_dir: Path) -> subprocess.CompletedProcess[bytes]:
    command = ["builder_server", f"--dir={data_dir}", "migrate", "--to=0003"]
    return forked.run(*command, env=environment(), timeout=DEADLINE)


async def test_a_server_finds_its_own_builds(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for name in "ab":
            await store.schedule(script(name), Period.DAILY, NOW)
        await take(store, 1)
        other = Store(store.database, owner="other")
        await take(other, 2)
        assert (await running(store), await running(other)) == ((uuid(1),), (uuid(2),))
        assert {build.uuid for build in (await store.info()).running} == {uuid(1), uuid(2)}


AFTER_A = JobOptions(retries=1, after=(JobReference(name="a"), JobReference(name="orb", platform="p1")))


IMPORTED = Build(
    uuid=uuid(9), job=script("a"), started=NOW, losses=0, state="finished", finished=NOW, result=Exited(code=0)
)
ME = ServerIdentity(name="main", incarnation=uuid(1), version="1.0", token="")
FAILED = Attempted(state=UploadState.PENDING, at=NOW, reason="no", next_attempt=NOW, failures=1, resume=NOW)


async def test_all_that_the_store_says_is_understood_by_postgresql(tmp_path: Path) -> None:
    """``opened`` compiles every statement for it: here is each method of the store, in a life from an import on."""
    orb = OrbBuildJob(name="orb", opam_package="x")
    imported = (
        DroppedPlatform(platform="p9"),
        ScheduleItem(next=NOW, period=Period.DAILY, job=script("old")),
        Queue(platform="p1", jobs=(script("old"),)),
    )
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("register", (ME,), {}),
        ("servers", (), {}),
        ("count_owned", (), {}),
        ("is_pristine", (), {}),
        ("import_state", (imported,), {}),
        ("import_build", (IMPORTED, lambda: [[StoredArtifact(path="a", size=1, sha256=bytes(32))]]), {"upload": True}),
        ("schedule", (script("a"), Period.DAILY, NOW), {}),
        ("schedule", (orb, Period.DAILY, NOW), {}),
        ("plan", (script("b"), AFTER_A, NOW), {"run_now": True}),
        ("change", ("b", 1, evolve(AFTER_A, after=(), cron=Cron(rule="@daily")), script("b"), NOW), {}),
        ("change", ("b", 2, AFTER_A, None, NOW), {}),
        ("show", ("b",), {}),
        ("jobs", (None,), {}),
        ("jobs", ("b",), {}),
        (
            "apply",
            (
                Apply(removed=(), changed=(ChangeJob(name="b", revision=3, options=AFTER_A),), added=()),
                {"b": Timing.of(AFTER_A, "b", NOW)},
                NOW,
            ),
            {},
        ),
        ("execute", ("orb", None, NOW, "client"), {}),
        ("execute", ("a", "p1", NOW, "client"), {}),
        ("reschedule", ("a", NOW, Period.WEEKLY), {}),
        ("queue_due", (Instant(NOW.ms + 10**10),), {}),
        ("dequeue", ("old", None), {}),
        ("execute", ("old", None, NOW, "client"), {}),
        ("dequeue", ("old", "p1"), {}),
        ("execute", ("old", None, NOW, "client"), {}),
        ("queue_due", (NOW,), {}),  # puts back
        ("queue_due", (NOW, NOW), {}),
        *(("take", ("p1", uuid(number), NOW, None), {}) for number in (1, 2, 3)),
        ("lose", (uuid(1), NOW, LOST), {"count": True}),
        ("note_cancel", (uuid(2), "a:1"), {}),
        ("find_running", ("a", None, None), {}),
        ("find_running", (None, "00", "p1"), {}),
        ("add_artifacts", (uuid(2), [StoredArtifact(path="a", size=1, sha256=bytes(32))]), {}),
        ("forget_artifacts", (uuid(2),), {}),
        ("note_facts", (uuid(2), {"sandbox": "none"}), {}),
        ("finish", (uuid(2), NOW, Exited(code=0)), {"receivers": ["r"]}),
        ("finish", (uuid(3), NOW, Exited(code=1)), {}),
        ("queue_due", (Instant(NOW.ms + 10**8),), {}),  # what failed is tried again
        ("running", (), {}),
        ("runs_here", (uuid(1),), {}),
        ("claim", (uuid(1), bytes(32)), {}),
        ("ask_end", ([uuid(1)], "a:1"), {}),
        ("left_behind", (), {}),
        ("forget_left_behind", ([uuid(1)],), {}),
        ("find_build", (uuid(1),), {}),
        ("find_head", (uuid(1),), {}),
        ("script_size", ("a",), {}),
        ("history", (ShowHistory(count=5),), {}),
        (
            "history",
            (
                ShowHistory(
                    count=5, name="a", platform="p1", failed=True, since=NOW, behind=HistoryPlace(at=NOW, key="5")
                ),
            ),
            {},
        ),
        ("history", (ShowHistory(count=5, behind=HistoryPlace(at=NOW, key=f" {7:019}")),), {}),
        ("find_builds", ("0000", 2), {}),
        ("list_artifacts", (uuid(2), "", 9), {}),
        ("info", (), {}),
        ("has_platform", ("p1",), {}),
        ("upload_imported", (uuid(2),), {}),
        ("load", (NOW,), {}),
        ("standing", (Look(entries=9, results=9),), {}),
        ("info_within", (10**6,), {}),
        ("unsigned", ([uuid(3)],), {}),
        ("signable", (uuid(2),), {}),
        ("note_signed", ([uuid(2)], [uuid(3)]), {}),
        ("unsettled_uploads", (["r"], uuid(1)), {}),
        ("settle_uploads", ([uuid(2)], ["r"]), {}),
        ("next_upload", ("r", NOW, [uuid(7)]), {}),
        ("note_attempt", (uuid(2), "r", FAILED, ["r"]), {}),
        ("uploads", (ListUploads(count=9, behind=UploadPlace(since=NOW, uuid=uuid(1), receiver="r")), ["r"]), {}),
        ("uploads", (ListUploads(count=9, build=uuid(2)), ["r"]), {}),
        ("count_uploads", (["r"],), {}),
        ("retry_upload", (uuid(2), ["r"]), {}),
        ("retry_uploads", (["r"],), {}),
        ("drop_upload", (uuid(2),), {}),
        ("set_upload", (uuid(2), "uploaded"), {}),
        ("uploaded", (uuid(1),), {}),
        ("unmeasured", (), {}),
        ("measure", ({uuid(3): 7},), {}),
        ("older_than", (NOW, None), {}),
        ("beyond_count", (1, OldBuild(uuid=uuid(1), name="a", started=NOW, size=0)), {}),
        ("total_size", (), {}),
        ("oldest", (OldBuild(uuid=uuid(1), name="a", started=NOW, size=0),), {}),
        ("forget", ([uuid(3)],), {}),
        ("forget_skipped", (NOW,), {}),
        ("halt", (SERVER, NOW, "a:1", "why", Instant(NOW.ms + 1)), {}),
        ("halt", (SERVER, NOW, "a:1", None, None), {}),
        ("recall_halts", (), {}),
        ("count_running", (SERVER,), {}),
        ("take", ("p1", uuid(4), NOW, None), {}),
        ("resume", (SERVER,), {}),
        ("unschedule", ("orb",), {}),
        ("drop_platform", ("p1",), {}),
        ("undrop_platform", ("p1",), {}),
        ("unwatched", (), {}),
        ("take_over", (["gone"],), {}),
        ("hear_anything", (), {}),
        ("leave", (), {}),
    ]
    async with opened(tmp_path) as store:
        for name, arguments, options in calls:
            await getattr(store, name)(*arguments, **options)
    public = {name for name, found in vars(Store).items() if inspect.iscoroutinefunction(found) and name[0] != "_"}
    assert {name for name, _, _ in calls} == public - {"run"}


def test_times_and_ids_have_64_bits() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    made = [str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables]
    made += [
        str(CreateIndex(index).compile(dialect=dialect)) for table in metadata.sorted_tables for index in table.indexes
    ]
    lines = [line.strip() for statement in made for line in statement.splitlines()]
    assert {line.split()[0] for line in lines if " INTEGER" in line} == {
        "attempts",
        "failures",
        "losses",
        "priority",
        "retries",
        "retry",
    }
    assert {line.split()[0] for line in lines if " BIGINT" in line or " BIGSERIAL" in line} == {
        "id",
        "job_id",
        "next_attempt",
        "next_run",
        "position",
        "resume",
        "since",
        "tried",
        "started",
        "finished",
        "due",
        "not_before",
        "planned_at",
        "until",
        "time_limit",
        "max_silent",
        "revision",
        "artifacts",
        "artifact_bytes",
        "size",
        "expires",
        "looked",
    }
