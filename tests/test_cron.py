"""Cron rules in three zones over both changes of a year, and against what a clock on a wall shows minute by minute."""

import datetime as dt
import itertools
import zoneinfo
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cron import ALIASES, InvalidRule, Rule
from builder.model import NEVER, Instant, Period

COPENHAGEN, NEW_YORK, LORD_HOWE = "Europe/Copenhagen", "America/New_York", "Australia/Lord_Howe"


def at(text: str) -> Instant:
    return Instant.from_datetime(dt.datetime.fromisoformat(text))


def runs(rule: Rule, start: str, count: int) -> list[str]:
    return [run.isoformat() for run in itertools.islice(rule.runs(at(start)), count)]


# In Copenhagen the clocks go from 2:00 to 3:00 on 2027-03-28 at 1:00 UTC, and from 3:00 to 2:00 on 2027-10-31 at 1:00.
# In New York from 2:00 to 3:00 on 2027-03-14 at 7:00, and from 2:00 to 1:00 on 2027-11-07 at 6:00.
# On Lord Howe from 2:00 to 1:30 on 2027-04-03 at 15:00, and from 2:00 to 2:30 on 2027-10-02 at 15:30.
@pytest.mark.parametrize(
    ("zone", "text", "start", "expected"),
    [
        # a time that is left out: the first moment after the gap
        (COPENHAGEN, "30 2 * * *", "2027-03-27T00:00Z", ["2027-03-27T01:30", "2027-03-28T01:00", "2027-03-29T00:30"]),
        (NEW_YORK, "30 2 * * *", "2027-03-13T00:00Z", ["2027-03-13T07:30", "2027-03-14T07:00", "2027-03-15T06:30"]),
        (LORD_HOWE, "15 2 * * *", "2027-10-01T12:00Z", ["2027-10-01T15:45", "2027-10-02T15:30", "2027-10-03T15:15"]),
        # several that are left out run once; the time right after the gap is no second run
        (COPENHAGEN, "0,30 2 * * *", "2027-03-27T12:00Z", ["2027-03-28T01:00", "2027-03-29T00:00"]),
        (COPENHAGEN, "30 2,3 * * *", "2027-03-27T12:00Z", ["2027-03-28T01:00", "2027-03-28T01:30"]),
        (COPENHAGEN, "0 2,3 * * *", "2027-03-27T12:00Z", ["2027-03-28T01:00", "2027-03-29T00:00"]),
        # a time that comes twice: the first
        (COPENHAGEN, "30 2 * * *", "2027-10-30T12:00Z", ["2027-10-31T00:30", "2027-11-01T01:30"]),
        (COPENHAGEN, "30 2 * * *", "2027-10-31T00:30Z", ["2027-11-01T01:30"]),
        (COPENHAGEN, "30 2 * * *", "2027-10-31T01:10Z", ["2027-11-01T01:30"]),
        (NEW_YORK, "30 1 * * *", "2027-11-06T12:00Z", ["2027-11-07T05:30", "2027-11-08T06:30"]),
        (LORD_HOWE, "45 1 * * *", "2027-04-03T00:00Z", ["2027-04-03T14:45", "2027-04-04T15:15"]),
        # an hour of * or */n: whatever the clock shows
        (
            COPENHAGEN,
            "*/30 * * * *",
            "2027-03-28T00:15Z",
            ["2027-03-28T00:30", "2027-03-28T01:00", "2027-03-28T01:30"],
        ),
        (
            COPENHAGEN,
            "0 * * * *",
            "2027-10-30T23:30Z",
            ["2027-10-31T00:00", "2027-10-31T01:00", "2027-10-31T02:00"],
        ),
        (
            COPENHAGEN,
            "0 */2 * * *",
            "2027-10-30T23:30Z",
            ["2027-10-31T00:00", "2027-10-31T01:00", "2027-10-31T03:00"],
        ),
        (COPENHAGEN, "0 1,*/2 * * *", "2027-10-30T23:30Z", ["2027-10-31T00:00", "2027-10-31T01:00"]),
        (COPENHAGEN, "0 0-23/2 * * *", "2027-10-30T23:30Z", ["2027-10-31T00:00", "2027-10-31T03:00"]),
        (NEW_YORK, "0 * * * *", "2027-03-14T05:30Z", ["2027-03-14T06:00", "2027-03-14T07:00", "2027-03-14T08:00"]),
        (
            LORD_HOWE,
            "*/15 * * * *",
            "2027-04-03T14:40Z",
            ["2027-04-03T14:45", "2027-04-03T15:00", "2027-04-03T15:15", "2027-04-03T15:30"],
        ),
        (LORD_HOWE, "*/15 * * * *", "2027-10-02T15:20Z", ["2027-10-02T15:30", "2027-10-02T15:45"]),
        # nothing jumps
        ("UTC", "17 3 * * mon-fri", "2027-01-01T00:00Z", ["2027-01-01T03:17", "2027-01-04T03:17"]),
        ("UTC", "0 0 29 2 *", "2095-01-01T00:00Z", ["2096-02-29T00:00", "2104-02-29T00:00"]),
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T12:00Z", ["2011-12-29T22:00", "2011-12-30T10:00"]),
    ],
)
def test_through_the_changes_of_clocks(zone: str, text: str, start: str, expected: list[str]) -> None:
    assert runs(Rule(text=text, zone=zone), start, len(expected)) == [f"{moment}:00Z" for moment in expected]


def values(field: str, first: int, last: int) -> set[int]:
    """Return what a field stands for: what crontab(5) says, without croniter."""
    found = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        low, _, high = span.partition("-")
        begin, end = (first, last) if span == "*" else (int(low), int(high or (last if step else low)))
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def matcher(expression: str) -> Callable[[dt.datetime], bool]:
    """Return what says whether a rule matches a time on the wall."""
    fields = expression.split()
    minutes, hours, days, months, weekdays = (
        values(field, *bounds) for field, bounds in zip(fields, BOUNDS, strict=True)
    )
    together = any if "*" not in (fields[2], fields[4]) else all

    def matches(wall: dt.datetime) -> bool:
        is_day = together((wall.day in days, not {wall.isoweekday(), wall.isoweekday() % 7}.isdisjoint(weekdays)))
        return wall.minute in minutes and wall.hour in hours and wall.month in months and is_day

    return matches


def by_the_minute(rule: Rule, start: dt.datetime, minutes: int) -> list[Instant]:
    """Return the runs in a span by looking at every minute of it: the same rules, told in another way."""
    zone = zoneinfo.ZoneInfo(rule.zone)
    follows_clock = any(hour.startswith("*") for hour in rule.text.split()[1].split(","))
    matches = matcher(rule.text)
    found = []
    before = 4 * 60
    latest = (
        (start - dt.timedelta(minutes=before)).astimezone(zone).replace(tzinfo=None)
    )  # the clock has shown all up to here
    for minute in range(-before, minutes + 1):
        moment = start + dt.timedelta(minutes=minute)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        if follows_clock:
            is_run = matches(wall)
        else:
            span = int((wall - latest) / dt.timedelta(minutes=1))
            is_run = any(matches(latest + dt.timedelta(minutes=step)) for step in range(1, span + 1))
            latest = max(latest, wall)
        if is_run and minute > 0:
            found.append(Instant.from_datetime(moment))
    return found


BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def items(low: int, high: int) -> st.SearchStrategy[str]:
    """Numbers, ranges and steps between two bounds, and lists of them."""
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.tuples(span | number.map(str), st.integers(2, 40)).map(lambda both: f"{both[0]}/{both[1]}")
    return st.lists(number.map(str) | span | step, min_size=1, max_size=3).map(",".join)


hours = st.sampled_from(["*", "*/2", "*/5", "5,*/3", "1,2", "1-3", "0-23/2", "2-4", "2-2"]) | items(0, 5)
minutes = st.sampled_from(["*", "*/15", "*/7", "0", "30", "59", "0,30", "15,45", "1-3"]) | items(0, 59)
days = st.sampled_from(
    ["* * *"] * 3 + ["* 3-4,10 *", "* * 6,7", "* * 0", "* * 1-1", "*/2 * *", "28-28 * *", "2,31 * 1"]
)
CHANGES = (
    (COPENHAGEN, dt.datetime(2027, 3, 28, 1, tzinfo=dt.UTC)),
    (COPENHAGEN, dt.datetime(2027, 10, 31, 1, tzinfo=dt.UTC)),
    (NEW_YORK, dt.datetime(2027, 3, 14, 7, tzinfo=dt.UTC)),
    (NEW_YORK, dt.datetime(2027, 11, 7, 6, tzinfo=dt.UTC)),
    (LORD_HOWE, dt.datetime(2027, 4, 3, 15, tzinfo=dt.UTC)),
    (LORD_HOWE, dt.datetime(2027, 10, 2, 15, 30, tzinfo=dt.UTC)),
)
changes = st.sampled_from(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("text", ["*/15 * * * *", "*/30 * * * *", "* * * * *"])
def test_a_rule_for_each_hour_follows_elapsed_time(text: str, change: tuple[str, dt.datetime]) -> None:
    zone, moment = change
    rule = Rule(text=text, zone=zone)
    step = {"*/15": 15, "*/30": 30, "*": 1}[text.split(maxsplit=1)[0]]
    runs = rule.runs(Instant.from_datetime(moment - dt.timedelta(hours=3)))
    found = list(itertools.islice(runs, 6 * 60 // step))
    assert {later.ms - earlier.ms for earlier, later in itertools.pairwise(found)} == {step * 60_000}


@given(minutes, hours, days, changes, st.integers(-1500, 60))
def test_none_skipped_and_none_doubled(
    minute: str, hour: str, day: str, change: tuple[str, dt.datetime], begin: int
) -> None:
    zone, moment = change
    rule = Rule(text=f"{minute} {hour} {day}", zone=zone)
    start = moment + dt.timedelta(minutes=begin)
    expected = by_the_minute(rule, start, 1800)
    end = Instant.from_datetime(start + dt.timedelta(minutes=1800))
    found = list(itertools.takewhile(lambda run: run <= end, rule.runs(Instant.from_datetime(start))))
    assert found == expected
    assert all(earlier < later for earlier, later in itertools.pairwise(found))


@given(minutes, hours, changes, st.lists(st.integers(0, 360 * 60_000), min_size=1, max_size=5))
def test_the_next_run_is_the_same_from_every_moment_before_it(
    minute: str, hour: str, change: tuple[str, dt.datetime], moments: list[int]
) -> None:
    """Whenever a server looks, also between two minutes: nothing depends on where it began to count."""
    zone, moment = change
    rule = Rule(text=f"{minute} {hour} * * *", zone=zone)
    start = Instant.from_datetime(moment - dt.timedelta(hours=3))
    runs_found = list(itertools.takewhile(lambda run: run.ms <= start.ms + 2 * 86_400_000, rule.runs(start)))
    for later in moments:
        now = Instant(start.ms + later)
        following = rule.next_after(now)
        assert following > now
        assert following == next((run for run in runs_found if run > now), following)


@pytest.mark.parametrize("zone", [COPENHAGEN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("text", ["30 2 * * *", "0 3 * * *", "45 1 * * *", "15 2 * * *", "59 23 * * *"])
def test_a_daily_job_runs_once_on_each_day_of_the_year(zone: str, text: str) -> None:
    found = list(itertools.islice(Rule(text=text, zone=zone).runs(at("2027-01-01T00:00Z")), 365))
    assert len({run.to_datetime().astimezone(zoneinfo.ZoneInfo(zone)).date() for run in found}) == 365
    assert {later.ms - earlier.ms for earlier, later in itertools.pairwise(found)} <= {
        step * 60_000 for step in range(23 * 60, 25 * 60 + 1, 15)
    }


@given(st.integers(0, NEVER.ms - 1), st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 29 2 *", "H H * * H"]))
def test_the_next_run_is_always_later(moment: int, text: str) -> None:
    assert Rule(text=text, zone=COPENHAGEN, name="a").next_after(Instant(moment)) > Instant(moment)


def test_there_is_an_end() -> None:
    assert Rule(text="0 0 * * *").next_after(at("9999-12-31T12:00Z")) == NEVER


# --- H -------------------------------------------------------------------------------------------------------------


def places(text: str, count: int = 4000) -> Counter[str]:
    """Return how many of so many jobs run first at each moment of the month."""
    start = at("2026-12-31T23:59Z")
    return Counter(Rule(text=text, name=f"job-{number}").next_after(start).isoformat()[5:16] for number in range(count))


def test_a_name_fixes_what_h_stands_for() -> None:
    assert places("H H * * *", 100) == places("H H * * *", 100)
    assert len(places("H H * * *", 100)) > 90


def test_daily_jobs_use_each_minute_of_the_day() -> None:
    found = places("H H * * *")
    assert len(found) > 1300
    assert max(found.values()) < 15  # three are at each on average
    minutes, hours = (Counter(moment[part] for moment in found.elements()) for part in (slice(9, 11), slice(6, 8)))
    assert (len(minutes), len(hours)) == (60, 24)
    assert max(minutes.values()) < 2 * min(minutes.values())
    assert max(hours.values()) < 2 * min(hours.values())


def test_monthly_jobs_run_in_each_month() -> None:
    days = Counter(moment[3:5] for moment in places("H H H * *", 2000).elements())
    assert sorted(map(int, days)) == [*range(1, 29)]


def test_weekly_jobs_use_each_day_of_the_week_alike() -> None:
    days = Counter(moment[3:5] for moment in places("H H * * H", 2000).elements())
    assert len(days) == 7
    assert max(days.values()) < 1.4 * min(days.values())


@given(st.text(max_size=8), st.integers(0, 59), st.integers(0, 59), st.integers(1, 70))
def test_h_within_a_range_and_with_a_step(name: str, one: int, other: int, step: int) -> None:
    low, high = sorted((one, other))
    (value,) = minutes_of(f"H({low}-{high})", name)
    assert low <= value <= high
    found = minutes_of(f"H({low}-{high})/{step}", name)
    assert low <= found[0] < min(low + step, high + 1)
    assert found == [*range(found[0], high + 1, step)]
    assert minutes_of(f"h({low}-{high})/{step},7", name) == sorted({*found, 7})


def minutes_of(field: str, name: str) -> list[int]:
    """Return the minutes of an hour at which a rule runs."""
    rule = Rule(text=f"{field} * * * *", name=name)
    end = at("2027-01-01T00:59Z")
    return [
        run.to_datetime().minute
        for run in itertools.takewhile(lambda run: run <= end, rule.runs(at("2026-12-31T23:59Z")))
    ]


def test_a_name_of_any_bytes() -> None:
    Rule(text="H * * * *", name="\udcff").next_after(at("2027-01-01T00:00Z"))


@pytest.mark.parametrize("alias", ALIASES)
def test_short_names(alias: str) -> None:
    long = Rule(text=ALIASES[alias], name="a")
    assert runs(Rule(text=alias, name="a"), "2027-01-01T00:00Z", 3) == runs(long, "2027-01-01T00:00Z", 3)
    assert runs(Rule(text=alias.upper()), "2027-01-01T00:00Z", 1) == runs(long, "2027-01-01T00:00Z", 1)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("daily", "1 field instead of 5"),
        ("* * * * * *", "6 fields"),
        ("0 0 1 1 * 0 2030", "7 fields"),
        ("60 * * * *", "does not exist"),
        ("* 24 * * *", "does not exist"),
        ("* * 32 * *", "does not exist"),
        ("* * * foo *", "does not exist"),
        ("*/0 * * * *", "does not exist"),
        ("5-1/0 * * * *", "does not exist"),
        ("\x1b[2J * * * *", "does not exist"),
        ("@reboot", "there are only @hourly"),
        ("@", "there are only"),
        ("5-1 * * * *", "5-1 ends before it begins: write two ranges, 5-59,0-1;"),
        ("0 22-6/2 * * *", "22-6 ends before it begins: write two ranges, 22-23/2,0-6/2;"),
        ("0 0 * nov-feb *", "nov-feb ends before it begins: write two ranges, nov-12,1-feb;"),
        ("0 0 * * 5-1", "5-1 ends before it begins: write two ranges, 5-7,0-1;"),
        ("0 0 * * mon,FRI-mon", "FRI-mon ends before it begins: write two ranges, FRI-7,0-mon;"),
        ("60-60 * * * *", "does not exist"),
        ("H(5-1) * * * *", "does not exist"),
        ("H(50-60) * * * *", "does not exist"),
        ("* * H(0-5) * *", "does not exist"),
        ("H/0 * * * *", "does not exist"),
        ("H(5-5)/0 * * * *", "does not exist"),
        ("H-5 * * * *", "does not exist"),
        ("R * * * *", "another time at each look"),
        ("r(0-5) 3 * * *", "another time at each look"),
        ("H(1-2),R 3 * * *", "another time at each look"),
        ("0 0 1,15 * fri#2", "beside a day of the other kind"),
        ("0 0 31 7 L5", "beside a day of the other kind"),
        ("0 0 L * mon", "beside a day of the other kind"),
        ("0 0 15W * mon", "beside a day of the other kind"),
        ("30 2 30 2 *", "never matches"),
        ("0 0 31 4,6,9,11 *", "never matches"),
        ("1," * 200 + " * * * *", "more than 200 characters"),
    ],
)
def test_what_is_no_rule(text: str, reason: str) -> None:
    with pytest.raises(InvalidRule, match=reason) as refused:
        Rule(text=text)
    assert "\n" not in str(refused.value)
    assert str(refused.value).isprintable()


@given(st.text(max_size=30) | st.lists(st.sampled_from("*/0159-,HLW#?@ monRr() "), max_size=20).map("".join))
def test_whatever_is_written_the_error_says_so(text: str) -> None:
    try:
        rule = Rule(text=text, name="a")
    except InvalidRule:
        return
    assert rule.next_after(Instant(0)) > Instant(0)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 0 L * *", ["01-31", "02-28", "03-31"]),
        ("0 0 * * fri#5", ["01-29", "04-30", "07-30"]),
        ("0 0 * * L5", ["01-29", "02-26", "03-26"]),
        ("0 0 * * sat-sun", ["01-02", "01-03", "01-09"]),
        ("0 0 * * fri-SUN", ["01-02", "01-03", "01-08", "01-09"]),
        ("0 0 * * sun-mon", ["01-03", "01-04", "01-10"]),
        ("0 0 * * 5-5", ["01-08", "01-15", "01-22"]),
        ("0 0 * * sun-sun", ["01-03", "01-10"]),
        ("0 0 1-1 feb-2 *", ["02-01"]),
        ("0 0 31 * mon", ["01-04", "01-11", "01-18", "01-25", "01-31", "02-01"]),
    ],
)
def test_days_of_the_month_and_of_the_week(text: str, days: list[str]) -> None:
    found = runs(Rule(text=text), "2027-01-01T00:00Z", len(days))
    assert [run[5:10] for run in found] == days


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe", "Europe/\0", "/etc/localtime", "x" * 500]
)
def test_what_is_no_time_zone(zone: str) -> None:
    with pytest.raises(InvalidRule, match="unknown time zone"):
        Rule(text="@daily", zone=zone)


# --- what a classic peer is shown ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("* * * * *", Period.HOURLY),
        ("*/15 * * * *", Period.HOURLY),
        ("0 */4 * * *", Period.HOURLY),
        ("0 */6 * * *", Period.DAILY),
        ("17 3 * * *", Period.DAILY),
        ("17 3 * * mon-fri", Period.DAILY),
        ("0 0 * * sun,wed", Period.WEEKLY),
        ("@weekly", Period.WEEKLY),
        ("@monthly", Period.WEEKLY),
    ],
)
def test_the_nearest_classic_period(text: str, period: Period) -> None:
    assert Rule(text=text).nearest_period(at("2027-01-01T00:00Z")) is period
