"""How jobs are run: the grid of a period, the spread over it, rules beside it, and options that contradict each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cron import Rule
from builder.errors import InvalidOptions
from builder.model import NEVER, Instant, Period
from builder.planning import Cron, JobOptions, JobReference

HOUR, DAY, WEEK = 3_600_000, 86_400_000, 604_800_000
START = 1_795_194_796_123  # 2026-11-20T17:13:16.123Z
PERIODIC = st.sampled_from([Period.HOURLY, Period.DAILY, Period.WEEKLY])
# from year 0 to 5138, so that nothing ends at NEVER
TIMES = st.integers(-62_167_219_200_000, 10**14).map(Instant)


def following_run(run: Instant, period: Period, now: Instant) -> Instant:
    return JobOptions(period=period).next_after("job", run, max(run, now))


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


@given(TIMES, PERIODIC, TIMES)
def test_what_was_planned_too_far_away_returns_to_its_grid(run: Instant, period: Period, now: Instant) -> None:
    assert period.duration is not None
    step = int(period.duration.total_seconds() * 1000)
    found = JobOptions(period=period).next_after("job", run, now)
    assert now.ms < found.ms <= now.ms + step
    assert (found.ms - run.ms) % step == 0


@given(st.text(max_size=20), PERIODIC, TIMES, TIMES)
def test_a_spread_job_has_a_place_of_its_own(name: str, period: Period, start: Instant, now: Instant) -> None:
    assert period.duration is not None
    step = int(period.duration.total_seconds() * 1000)
    options = JobOptions(period=period, spread=True)
    found = options.next_after(name, start, now)
    assert now.ms < found.ms <= now.ms + step
    assert found.ms % 1000 == 0
    assert options.next_after(name, found, found).ms == found.ms + step
    assert options.next_after(name, NEVER, now) == found  # wherever it was counted from


def test_a_hundred_spread_jobs_do_not_start_together() -> None:
    options = JobOptions(period=Period.DAILY, spread=True)
    runs = sorted(options.next_after(f"job-{number}", Instant(0), Instant(0)).ms for number in range(100))
    assert len(set(runs)) == 100
    quarters = [
        sum(quarter * 6 * HOUR <= run - runs[0] < (quarter + 1) * 6 * HOUR for run in runs) for quarter in range(4)
    ]
    assert min(quarters) > 10


def test_a_rule_counts_before_the_period() -> None:
    options = JobOptions(period=Period.HOURLY, cron=Cron(rule="0 0 1 1 *"))
    assert options.next_after("job", Instant(START), Instant(START)).isoformat() == "2027-01-01T00:00:00Z"
    assert options.classic_period("job", Instant(START)) is Period.WEEKLY
    assert JobOptions(period=Period.HOURLY).classic_period("job", Instant(START)) is Period.HOURLY


@pytest.mark.parametrize(("rule", "looks"), [("0 3 * mar thu", 1), ("@hourly", 1), ("0 h(0-5) * * *", 3)])
def test_jobs_share_a_rule_that_does_not_depend_on_their_names(
    rule: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: dict[str, list[Rule]] = {"next_after": [], "nearest_period": []}

    def note(name: str) -> None:
        look = getattr(Rule, name)

        def noting(rule: Rule, now: Instant) -> object:
            looked[name].append(rule)
            return look(rule, now)

        monkeypatch.setattr(Rule, name, noting)

    for each in looked:
        note(each)
    options = JobOptions(cron=Cron(rule=rule, zone="Asia/Tokyo"))
    for name in ("a", "b", "c"):
        assert options.next_after(name, Instant(START), Instant(START)) > Instant(START)
        assert options.classic_period(name, Instant(START)) is not Period.NEVER
    assert {name: len(rules) for name, rules in looked.items()} == dict.fromkeys(looked, looks)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"priority": 10}, "a priority must lie between 0 and 9"),
        ({"priority": -1}, "a priority must lie between 0 and 9"),
        ({"retries": 11}, "retries must lie between 0 and 10"),
        ({"time_limit": 0}, "milliseconds of a time limit"),
        ({"max_silent": 30 * DAY + 1}, "milliseconds of silence"),
        ({"after": (JobReference(name="b"),) * 2}, "named twice"),
        ({"after": tuple(JobReference(name=f"b{number}") for number in range(65))}, "64 others at most"),
        ({"after": (JobReference(name="job", platform="p"),)}, "can't wait for itself"),
        ({"cron": Cron(rule="30 2 30 2 *")}, "never matches"),
        ({"cron": Cron(rule="@daily", zone="Mars/Base")}, "unknown time zone"),
        ({"cron": Cron(rule="@daily"), "spread": True}, "H spreads"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidOptions, match=reason):
        JobOptions(**options).check("job")  # type: ignore[arg-type]
