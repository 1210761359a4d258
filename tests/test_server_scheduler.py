"""builder-server's scheduler: when jobs run, as a table, and the rules that hold for all times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model import NEVER, Instant, Period
from builder_server.scheduler import following_run, latest_run, put_back, time_until

HOUR, DAY, WEEK = 3_600_000, 86_400_000, 604_800_000
START = 1_795_194_796_123  # 2026-11-20T17:13:16.123Z
PERIODIC = st.sampled_from([Period.HOURLY, Period.DAILY, Period.WEEKLY])
# from year 0 to 5138, so that nothing ends at NEVER
TIMES = st.integers(-62_167_219_200_000, 10**14).map(Instant)


@pytest.mark.parametrize(
    ("run", "period", "now", "following"),
    [
        # noticed at once, a little later, and just before the next one
        (0, Period.HOURLY, 0, HOUR),
        (0, Period.HOURLY, 1, HOUR),
        (0, Period.HOURLY, HOUR - 1, HOUR),
        # missed runs: the next lies in the future and on the grid
        (0, Period.HOURLY, HOUR, 2 * HOUR),
        (0, Period.HOURLY, HOUR + 1, 2 * HOUR),
        (0, Period.HOURLY, 100 * HOUR - 1, 100 * HOUR),
        (0, Period.DAILY, 5 * DAY + 7 * HOUR, 6 * DAY),
        (0, Period.WEEKLY, 15 * DAY, 21 * DAY),
        # ten years of a stopped server
        (0, Period.HOURLY, 3652 * DAY + 1, 3652 * DAY + HOUR),
        # the clock went back: the run that was noticed is not repeated
        (HOUR, Period.HOURLY, 0, 2 * HOUR),
        (HOUR, Period.DAILY, -40 * DAY, HOUR + DAY),
    ],
)
def test_the_run_after_one(run: int, period: Period, now: int, following: int) -> None:
    found = following_run(Instant(START + run), period, Instant(START + now))
    assert found.ms - START == following


@pytest.mark.parametrize("now", [START, START + 1, NEVER.ms, 0])
def test_a_job_that_never_repeats(now: int) -> None:
    assert following_run(Instant(START), Period.NEVER, Instant(now)) == NEVER


def test_the_last_run_before_the_end_of_time() -> None:
    almost = Instant(NEVER.ms - DAY)
    assert following_run(almost, Period.WEEKLY, almost) == NEVER


@given(TIMES, PERIODIC, TIMES)
def test_the_next_run_is_the_first_of_the_grid_in_the_future(run: Instant, period: Period, now: Instant) -> None:
    assert period.duration is not None
    step = int(period.duration.total_seconds() * 1000)
    following = following_run(run, period, now)
    assert (following.ms - run.ms) % step == 0
    assert following > max(run, now)
    assert following.ms - step <= max(run.ms, now.ms)


@given(TIMES, PERIODIC, st.lists(st.integers(0, 30_000), min_size=1, max_size=50))
def test_late_ticks_do_not_drift(run: Instant, period: Period, delays: list[int]) -> None:
    assert period.duration is not None
    step = int(period.duration.total_seconds() * 1000)
    begin = run
    for delay in delays:
        run = following_run(run, period, Instant(run.ms + delay))
    assert run.ms - begin.ms == len(delays) * step


def test_hourly_over_ten_years() -> None:
    run, years = Instant(START), 10
    for hour in range(1, years * 8766):
        run = following_run(run, Period.HOURLY, Instant(run.ms + (hour * 7919) % 60_000))
        assert run.ms == START + hour * HOUR


@pytest.mark.parametrize(
    ("run", "period", "now", "back"),
    [
        # as planned, at the latest, or a little later, as after a correction of the clock
        (HOUR, Period.HOURLY, 0, None),
        (HOUR + 60_000, Period.HOURLY, 0, None),
        (DAY, Period.DAILY, 0, None),
        (0, Period.DAILY, DAY, None),
        # the clock was ahead: the run that stands on the grid where it would have stood without that
        (HOUR + 60_001, Period.HOURLY, 0, 60_001),
        (3 * HOUR, Period.HOURLY, 0, HOUR),
        (1000 * DAY + 5 * HOUR, Period.DAILY, 0, 5 * HOUR),
        (1001 * DAY, Period.DAILY, 0, DAY),
        (300_000 * DAY, Period.WEEKLY, 0, DAY),
        # what never repeats has no period, and a clock that was never set shows nothing
        (NEVER.ms - START, Period.NEVER, 0, None),
        (HOUR, Period.DAILY, -START, None),
        (HOUR, Period.DAILY, -62_167_219_200_000 - START, None),
    ],
)
def test_a_run_that_lies_too_far_away(run: int, period: Period, now: int, back: int | None) -> None:
    there, moment = Instant(START + run), Instant(START + now)
    latest = latest_run(period, moment)
    if back is None:
        assert latest is None or there <= latest
    else:
        assert latest is not None
        assert there > latest
        assert put_back(there, period, moment).ms - START == back


@given(TIMES, PERIODIC, TIMES)
def test_what_is_put_back_is_the_next_run_on_its_grid(run: Instant, period: Period, now: Instant) -> None:
    assert period.duration is not None
    step = int(period.duration.total_seconds() * 1000)
    found = put_back(run, period, now)
    assert now.ms < found.ms <= now.ms + step
    assert (found.ms - run.ms) % step == 0
    latest = latest_run(period, now)
    assert latest is None or found <= latest


@given(PERIODIC, TIMES, st.integers(0, 10**12))
def test_what_the_server_plans_by_a_right_clock_is_never_too_far_away(period: Period, now: Instant, late: int) -> None:
    latest = latest_run(period, now)
    if latest is not None:
        assert period.first_after(now) <= latest
        assert following_run(Instant(now.ms - late), period, now) <= latest


@pytest.mark.parametrize(
    ("run", "now", "seconds"),
    [(0, 0, 0), (0, 1, 0), (1, 0, 0.001), (59_999, 0, 59.999), (60_000, 0, 60), (60_001, 0, 60), (10**12, 0, 60)],
)
def test_the_sleep_until_a_run(run: int, now: int, seconds: float) -> None:
    assert time_until(Instant(run), Instant(now)) == seconds


def test_the_sleep_until_never_is_bounded() -> None:
    assert time_until(NEVER, Instant(-62_167_219_200_000)) == 60
