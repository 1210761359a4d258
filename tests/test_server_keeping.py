"""builder-server: which builds are kept, what goes, and what never does."""

import datetime as dt
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
import sqlalchemy as sa
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from stores import LOST, NOW, database, opened, running, script, take, uuid

from builder.model import Exited, Instant
from builder.planning import JobOptions
from builder.quantities import InvalidQuantity
from builder_server.keeper import Keeper
from builder_server.names import ONLY_SERVER
from builder_server.results import build_dir
from builder_server.retention import Retention, parse_retention
from builder_server.store import OldBuild, Store, keeping
from builder_server.store.schema import build

pytestmark = pytest.mark.databases

DAY = 86_400_000


@define
class Farm:
    """A store with builds, each with files of 1000 bytes."""

    store: Store
    path: Path
    made: int = 0

    async def build(self, name: str, *, days: int, upload: str | None = None, is_lost: bool = False) -> int:
        """Have a job run so many days ago; return the number of its build."""
        self.made += 1
        number, then = self.made, Instant(NOW.ms - days * DAY + self.made)  # never two at once
        await self.store.execute(name, None, then, "client")
        taken = await self.store.take("p1", uuid(number), then, None)
        assert taken.build is not None
        directory = build_dir(self.path, taken.build)
        directory.mkdir(parents=True)
        (directory / "console").write_bytes(bytes(400))
        (directory / "full").write_bytes(bytes(600))
        if is_lost:
            await self.store.lose(uuid(number), then, LOST, count=False)
            await self.store.unschedule(name)
            await self.store.plan(script(name), JobOptions(), NOW, run_now=False)
        else:
            await self.store.finish(uuid(number), then, Exited(code=0), receivers=["r"] if upload else ())
            if upload is not None:
                await self.store.set_upload(uuid(number), upload)
        return number

    async def look(self, *texts: str) -> set[int]:
        """Let go what need not be kept, and return the builds that are left, by their numbers."""
        await Keeper(self.store, self.path, lambda: NOW, parse_retention(texts)).look()
        left = {number for number in range(1, self.made + 1) if await self.store.find_build(uuid(number))}
        files = {int(directory.name.replace("-", ""), 16) for directory in self.path.glob("*/*") if directory.is_dir()}
        assert files == left
        return left


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    async with opened(tmp_path) as store:
        for name in "ab":
            await store.plan(script(name), JobOptions(), NOW, run_now=False)
        yield Farm(store, tmp_path)


async def test_all_is_kept_unless_something_is_said(farm: Farm) -> None:
    await farm.build("a", days=10_000)
    assert await farm.look() == {1}


async def test_age(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for days in (100, 91, 89, 0):
        await farm.build("a", days=days)
    await farm.build("b", days=200, is_lost=True)
    assert await farm.look("age=90d") == {3, 4}
    assert "removed 3 builds, 2.9 KiB: older than 90 days" in caplog.text
    assert not (farm.path / "b").exists()


async def test_count_is_per_job(farm: Farm) -> None:
    for days in (5, 4, 3):
        await farm.build("a", days=days)
    await farm.build("b", days=9)
    assert await farm.look("count=2") == {2, 3, 4}


async def test_bytes(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name, days in (("a", 1), ("b", 3), ("a", 2), ("b", 4)):
        await farm.build(name, days=days)
    assert await farm.look("bytes=2500") == {1, 3}
    assert "removed 2 builds, 2 KiB: the oldest beyond 2.4 KiB" in caplog.text
    assert await farm.look("bytes=2500") == {1, 3}


@pytest.mark.parametrize("upload", ["pending", "failed", "uploaded"])
@pytest.mark.parametrize("keep", ["age=1d", "count=1", "bytes=1"])
async def test_what_is_not_uploaded_stays(farm: Farm, upload: str, keep: str) -> None:
    await farm.build("a", days=9, upload=upload)
    await farm.build("a", days=8, upload="done")
    await farm.build("a", days=7)
    assert 1 in await farm.look(keep)


async def test_what_runs_stays(farm: Farm) -> None:
    await farm.store.execute("a", None, NOW, "client")
    await take(farm.store, 50)
    await farm.look("age=1s", "count=1,bytes=1")
    assert await running(farm.store) == (uuid(50),)


async def test_more_than_a_page(farm: Farm) -> None:
    for _ in range(105):
        await farm.build("a", days=3)
    assert await farm.look("count=3") == {103, 104, 105}


async def test_files_that_can_not_be_removed(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    await farm.build("a", days=3)
    await farm.build("a", days=2)
    stuck = farm.path / "a" / str(uuid(1))
    for file in stuck.iterdir():
        file.unlink()
    stuck.rmdir()
    stuck.write_bytes(b"not a directory")
    await Keeper(farm.store, farm.path, lambda: NOW, Retention(age=dt.timedelta(days=1))).look()
    assert "can't be removed" in caplog.text
    assert await farm.store.find_build(uuid(1)) is not None
    assert await farm.store.find_build(uuid(2)) is None


async def test_a_crash_between_the_files_and_the_history(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    await farm.build("a", days=3)

    async def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget", crash)
        with pytest.raises(KeyboardInterrupt):
            await farm.look("age=1d")
    assert await farm.look("age=1d") == set()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is none of age, count, bytes"),
        ("90d", "is none of age, count, bytes"),
        ("age=", "is not a duration"),
        ("age=90", "has no unit"),
        ("age=-1d", "is not a duration"),
        ("count=0", "is not a number"),
        ("bytes=many", "is not a size"),
        ("age=1d,age=2d", "age is said twice"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidQuantity, match=reason):
        parse_retention([text])


@given(st.integers(1, 3650), st.integers(1, 10**6), st.integers(1, 10**6))
def test_what_is_read(days: int, count: int, gigabytes: int) -> None:
    expected = Retention(age=dt.timedelta(days=days), count=count, bytes=gigabytes * 2**30)
    assert parse_retention([f"age={days}d, count={count}", f"bytes={gigabytes}G"]) == expected


# --- what a look costs ---------------------------------------------------------------------------------------------


async def fill(store: Store, runs: int, *, jobs: int = 20, upload: str | None = None) -> None:
    """Add builds of jobs that have run by turns."""
    same = {
        "job_id": 1,
        "platform": "p1",
        "script": b"",
        "state": "finished",
        "losses": 0,
        "size": 10,
        "upload": upload,
    }
    rows = [
        {"uuid": str(uuid(number)), "name": f"job{number % jobs:03}", "started": number * 1000, **same}
        | {"finished": number * 1000 + 1}
        for number in range(1, runs * jobs + 1)
    ]
    await database(store).write(lambda connection: connection.execute(sa.insert(build), rows))


Step = Callable[[sa.Connection], Sequence[OldBuild] | int]

STEPS: dict[str, Step] = {
    "age": lambda connection: keeping.older_than(connection, ONLY_SERVER, Instant(50_000), None),
    "count": lambda connection: keeping.beyond_count(connection, ONLY_SERVER, 5, None),
    "bytes": lambda connection: keeping.oldest(connection, ONLY_SERVER, None),
    "a size that is not known": lambda connection: keeping.unmeasured(connection, ONLY_SERVER),
}


async def cost(store: Store, step: Step) -> int:
    """Return how many instructions of its machine SQLite runs."""

    def count(connection: sa.Connection) -> int:
        found = 0

        def note() -> int:
            nonlocal found
            found += 1
            return 0

        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(note, 10)
        step(connection)
        driver.set_progress_handler(None, 10)
        return found * 10

    return await database(store).read(count)


@pytest.mark.sqlite
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_page_costs_the_same_of_ten_times_the_builds(tmp_path: Path, step: Step) -> None:
    costs = []
    for number, runs in enumerate((30, 300)):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with opened(folder) as store:
            await fill(store, runs)
            costs.append(await cost(store, step))
    few, many = costs
    assert many < 1.2 * few


async def test_all_pages_together_look_at_each_build_once(tmp_path: Path) -> None:
    """Also where most of them may not go, and are passed over."""
    async with opened(tmp_path) as store:
        await fill(store, 300, upload="failed")
        keeper = Keeper(store, tmp_path, lambda: NOW, parse_retention(["bytes=1"]))
        pages = []
        find = store.oldest

        async def noting(behind: OldBuild | None) -> list[OldBuild]:
            pages.append(behind)
            return await find(behind)

        with mock.patch.object(Store, "oldest", staticmethod(noting)):
            await keeper.look()
            done = sa.update(build).where(build.c.started > 5_500_000).values(upload="done")
            await database(store).write(lambda connection: connection.execute(done))
            await keeper.look()
        places = [behind.started.ms for behind in pages if behind]
        assert places == sorted(places)
        assert places[0] > 5_500_000
        left = await database(store).read(
            lambda connection: connection.exec_driver_sql("select count(*) from build").scalar()
        )
        assert left == 5500


async def test_the_newest_stay_whatever_became_of_the_others(farm: Farm) -> None:
    for days in (5, 4, 3):
        await farm.build("a", days=days, upload="failed")
    newest = await farm.build("a", days=1)
    assert await farm.look("count=2") == {1, 2, 3, newest}


async def test_count_of_more_jobs_than_a_page_has(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store, 3, jobs=250)
        await Keeper(store, tmp_path, lambda: NOW, parse_retention(["count=2"])).look()
        rows = await database(store).read(
            lambda connection: connection.exec_driver_sql("select count(*), min(started) from build").one()
        )
        assert tuple(rows) == (500, 251_000)
