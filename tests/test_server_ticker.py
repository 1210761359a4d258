"""builder-server's ticker under clocks that the test moves: what is due is queued, missed runs once, on the grid."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from attrs import define
from farm import eventually, log_lines
from trio.testing import MockClock

from builder.extension.builds import ShowHistory
from builder.history import Cause
from builder.model import Exited, Instant, Period, ScriptJob
from builder.planning import JobOptions, Missed
from builder.quantities import format_duration
from builder_server.store import Due, Store, StoreError
from builder_server.ticker import Ticker

START = Instant(1_795_194_796_123)
SECOND, MINUTE, HOUR, DAY, WEEK = 1000, 60_000, 3_600_000, 86_400_000, 604_800_000


class WatchedStore(Store):
    """A store that counts how often the ticker has looked, and can't be read when told so."""

    looks = 0
    broken = False

    async def queue_due(self, now: Instant, missed_before: Instant | None = None) -> Due:
        found = await super().queue_due(now, missed_before)
        self.looks += 1
        if self.broken:
            raise StoreError("the database can't be read: disk I/O error")
        return found


@define
class Farm:
    """A ticker and its store. ``clock`` is the one of trio's deadlines, ``wall`` may be set like any clock."""

    store: WatchedStore
    clock: MockClock
    ticker: Ticker | None = None
    wall: Instant = START

    def begin(self, nursery: trio.Nursery) -> None:
        self.ticker = Ticker(self.store, lambda: self.wall, trio.current_time)
        nursery.start_soon(self.ticker.run)

    async def pass_time(self, ms: int) -> None:
        """Let time pass on both clocks, enough for the ticker to look, and wait until it has."""
        looks = self.store.looks
        self.wall = Instant(self.wall.ms + ms)
        self.clock.jump(ms / 1000)
        await eventually(lambda: self.store.looks > looks, what="a look at what is due")

    async def schedule(self, name: str, period: Period, missed: Missed = Missed.RUN_ONCE) -> None:
        """Add a job, and take it from the queue."""
        async with self.told_of(period.first_after(self.wall)):
            job, options = ScriptJob(name=name, platform="p1", script=b""), JobOptions(period=period, missed=missed)
            await self.store.plan(job, options, self.wall)
        await self.empty()

    async def reschedule(self, name: str, ms: int, period: Period | None = None) -> None:
        """Set a next run, in milliseconds from the start of the test."""
        async with self.told_of(Instant(START.ms + ms)):
            await self.store.reschedule(name, Instant(START.ms + ms), period)

    @asynccontextmanager
    async def told_of(self, new: Instant) -> AsyncIterator[None]:
        """Wait for the look of a ticker that is told of a run, as it is where that is the next one now."""
        looks, found = self.store.looks, (await self.store.info()).schedule
        yield
        if not found or new < found[0].next:
            await eventually(lambda: self.store.looks > looks, what="a look at what is due")

    async def empty(self) -> list[str]:
        """Take all jobs from the queue, have them succeed, and return their names."""
        names = []
        while (build := (await self.store.take("p1", uuid4(), self.wall, None)).build) is not None:
            await self.store.finish(build.uuid, self.wall, Exited(code=0))
            names.append(build.job.name)
        return names

    async def causes(self) -> dict[str, Cause]:
        """Return why each job was put into the queue; they are taken from it."""
        names = await self.empty()
        found = await self.store.history(ShowHistory(count=10))
        return {name: next(entry.cause for entry in found if entry.name == name) for name in names}

    async def skipped(self) -> list[str]:
        """Return the jobs of which a run was left out."""
        return [entry.name for entry in await self.store.history(ShowHistory(count=10)) if entry.skipped]

    async def next_run(self) -> int:
        """Milliseconds from the start of the test to the first next run."""
        return (await self.store.info()).schedule[0].next.ms - START.ms


@asynccontextmanager
async def ticking(path: Path, clock: MockClock, wall: Instant = START) -> AsyncIterator[Farm]:
    store = WatchedStore.open(path / "db")
    farm = Farm(store, clock, wall=wall)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        farm.begin(nursery)
        await eventually(lambda: store.looks)
        yield farm
        nursery.cancel_scope.cancel()
    store.close()


# Each test names mock_clock itself: pytest-trio takes the clock of a run from the arguments of the test alone.


@pytest.fixture
async def farm(tmp_path: Path, mock_clock: MockClock) -> AsyncIterator[Farm]:
    async with ticking(tmp_path, mock_clock) as found:
        yield found


async def test_a_due_job_is_queued_when_its_time_has_come(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.HOURLY)
    work = farm.store.waking.platform("p1")
    queued = work.next
    for _ in range(59):
        await farm.pass_time(MINUTE)
    assert await farm.empty() == []
    assert not queued.is_set()
    await farm.pass_time(MINUTE)
    assert await farm.empty() == ["a"]
    assert queued.is_set()
    assert await farm.next_run() == 2 * HOUR


async def test_the_ticker_wakes_for_the_next_run_and_not_only_each_minute(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.DAILY)
    await farm.reschedule("a", 1500)
    await farm.pass_time(1500)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == 1500 + DAY


@pytest.mark.parametrize("period", [Period.HOURLY, Period.DAILY, Period.WEEKLY])
async def test_missed_runs_run_once_and_the_next_stays_on_the_grid(
    mock_clock: MockClock, farm: Farm, period: Period
) -> None:
    """The machine slept: both clocks went on, and nobody looked."""
    assert period.duration
    step = int(period.duration.total_seconds() * 1000)
    await farm.schedule("a", period)
    await farm.pass_time(5 * step + 17 * SECOND)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == 6 * step
    await farm.pass_time(MINUTE)
    assert await farm.empty() == []


async def test_a_clock_that_was_set_forward_is_noticed_within_a_minute(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.WEEKLY)
    farm.wall = Instant(START.ms + 8 * DAY)
    await farm.pass_time(MINUTE)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == 2 * WEEK


@pytest.mark.parametrize("ahead", [2 * MINUTE + 1, 5 * HOUR, 1000 * DAY])
async def test_a_clock_that_was_set_forward_is_no_time_in_which_the_server_was_down(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture, ahead: int
) -> None:
    await farm.schedule("a", Period.HOURLY, Missed.SKIP)
    await farm.reschedule("a", MINUTE)
    farm.wall = Instant(START.ms + ahead)
    await farm.pass_time(MINUTE)
    assert await farm.causes() == {"a": Cause.DUE}
    assert await farm.skipped() == []
    (line,) = log_lines(caplog.text, "the clock was set forward by ")
    assert line.endswith(f"by {format_duration(ahead // SECOND * SECOND)}")


async def test_a_clock_that_is_corrected_is_not_worth_a_line(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    for correction in (MINUTE, -MINUTE):
        farm.wall = Instant(farm.wall.ms + correction)
        await farm.pass_time(MINUTE)
    assert "the clock was set" not in caplog.text


@pytest.mark.parametrize("missed", Missed)
async def test_a_run_that_nobody_misses(mock_clock: MockClock, farm: Farm, missed: Missed) -> None:
    await farm.schedule("a", Period.HOURLY, missed)
    for _ in range(60):
        await farm.pass_time(MINUTE)
    assert await farm.causes() == {"a": Cause.DUE}


@pytest.mark.parametrize("step", [2 * MINUTE, 2 * MINUTE + 1, 5 * HOUR])
async def test_a_time_in_which_nobody_looked_is_one_in_which_the_server_was_down(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture, step: int
) -> None:
    """The machine slept, or the process was held up: both clocks went on."""
    await farm.schedule("skip", Period.HOURLY, Missed.SKIP)
    await farm.schedule("run", Period.HOURLY)
    for name in ("skip", "run"):
        await farm.reschedule(name, MINUTE)
    await farm.pass_time(step)
    if step == 2 * MINUTE:
        assert await farm.causes() == {"skip": Cause.DUE, "run": Cause.DUE}
    else:
        assert await farm.causes() == {"run": Cause.MISSED}
        assert await farm.skipped() == ["skip"]
    assert "the clock was set" not in caplog.text


async def test_a_clock_that_is_set_while_nobody_looks(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    await farm.schedule("skip", Period.HOURLY, Missed.SKIP)
    farm.wall = Instant(START.ms - 3 * HOUR)
    await farm.pass_time(5 * HOUR)
    assert await farm.skipped() == ["skip"]
    assert len(log_lines(caplog.text, "the clock was set back by 3h")) == 1


async def test_a_clock_that_was_set_back_repeats_nothing_at_once(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.HOURLY)
    await farm.pass_time(HOUR)
    assert await farm.empty() == ["a"]
    farm.wall = START
    for _ in range(5):
        await farm.pass_time(MINUTE)
    assert await farm.empty() == []
    assert await farm.next_run() == HOUR


PUT_BACK = "the clock was set back: next runs that were further away than their period are put back, of "


async def test_a_clock_that_was_ahead_for_a_moment(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    """What is planned meanwhile, by the ticker and by a client, runs when it would have; what somebody set stays."""
    await farm.schedule("a", Period.DAILY)
    await farm.schedule("set", Period.DAILY)
    await farm.reschedule("set", 2000 * DAY)
    farm.wall = Instant(START.ms + 1000 * DAY + 7 * HOUR)
    await farm.pass_time(MINUTE)
    await farm.schedule("new", Period.HOURLY)
    assert {item.job.name: item.next.ms - START.ms for item in (await farm.store.info()).schedule} == {
        "a": 1001 * DAY,
        "set": 2000 * DAY,
        "new": 1000 * DAY + 8 * HOUR + MINUTE,
    }
    farm.wall = Instant(START.ms + 2 * HOUR)
    for _ in range(3):
        await farm.pass_time(MINUTE)
    assert {item.job.name: item.next.ms - START.ms for item in (await farm.store.info()).schedule} == {
        "a": DAY,
        "set": 2000 * DAY,
        "new": 3 * HOUR + MINUTE,
    }
    (line,) = log_lines(caplog.text, PUT_BACK)
    assert line.endswith(("of a, new", "of new, a"))
    assert await farm.empty() == []
    await farm.pass_time(DAY - 2 * HOUR - 3 * MINUTE)
    assert sorted(await farm.empty()) == ["a", "new"]


async def test_a_run_that_somebody_set_is_followed_by_one_of_the_servers_own(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.HOURLY)
    await farm.reschedule("a", 30 * DAY)
    farm.wall = Instant(START.ms + 1000 * DAY)
    await farm.pass_time(MINUTE)
    assert await farm.empty() == ["a"]
    farm.wall = START
    await farm.pass_time(MINUTE)
    assert await farm.next_run() == HOUR


async def test_a_clock_that_is_corrected_a_little_moves_nothing(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    await farm.schedule("a", Period.HOURLY)
    farm.wall = Instant(START.ms - 2 * MINUTE + 1)
    await farm.pass_time(MINUTE)
    assert await farm.next_run() == HOUR
    assert PUT_BACK not in caplog.text


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        pytest.param(Instant(0), 5 * DAY, id="never set"),
        pytest.param(Instant(START.ms - 3 * DAY), -2 * DAY, id="set back"),
    ],
)
async def test_a_clock_that_stands_in_the_past_at_the_start(
    tmp_path: Path, mock_clock: MockClock, wall: Instant, expected: int
) -> None:
    async with ticking(tmp_path, mock_clock) as farm:
        farm.wall = Instant(START.ms + 4 * DAY)
        await farm.schedule("a", Period.DAILY)
    async with ticking(tmp_path, mock_clock, wall) as farm:
        assert await farm.next_run() == expected
        assert await farm.empty() == []
        farm.wall = Instant(START.ms + 4 * DAY)
        await farm.pass_time(MINUTE)
        assert await farm.next_run() == 5 * DAY
        assert await farm.empty() == ([] if expected == 5 * DAY else ["a"])


async def test_a_job_that_waits_still_is_not_queued_twice(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.HOURLY)
    for _ in range(3):
        await farm.pass_time(HOUR)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == 4 * HOUR


async def test_rescheduled_nothing_runs_now_and_the_grid_moves(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.HOURLY)
    await farm.reschedule("a", 90 * MINUTE)
    assert await farm.empty() == []
    await farm.pass_time(HOUR)
    assert await farm.empty() == []
    await farm.pass_time(30 * MINUTE)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == 150 * MINUTE


async def test_rescheduled_with_a_period(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.NEVER)
    await farm.reschedule("a", MINUTE, Period.DAILY)
    await farm.pass_time(MINUTE)
    assert await farm.empty() == ["a"]
    assert await farm.next_run() == MINUTE + DAY


async def test_a_job_that_never_repeats_is_left_alone(mock_clock: MockClock, farm: Farm) -> None:
    await farm.schedule("a", Period.NEVER)
    await farm.pass_time(3650 * DAY)
    assert await farm.empty() == []


async def test_runs_missed_while_the_server_was_down(tmp_path: Path, mock_clock: MockClock) -> None:
    async with ticking(tmp_path, mock_clock) as farm:
        await farm.schedule("a", Period.HOURLY)
        await farm.schedule("b", Period.DAILY)
    async with ticking(tmp_path, mock_clock, Instant(START.ms + 5 * HOUR + 1)) as farm:
        assert await farm.empty() == ["a"]
        assert await farm.next_run() == 6 * HOUR


async def test_a_database_that_can_not_be_read_is_tried_again(
    mock_clock: MockClock, farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    await farm.schedule("a", Period.HOURLY)
    farm.store.broken = True
    await farm.pass_time(MINUTE)
    await farm.pass_time(MINUTE)
    farm.store.broken = False
    assert len(log_lines(caplog.text, "due jobs can't be queued, trying again: ", "disk I/O error")) == 2
    await farm.pass_time(HOUR)
    assert await farm.empty() == ["a"]
