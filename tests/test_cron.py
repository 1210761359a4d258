"""Cron rules in three zones over both changes of a year, and against what a clock on a wall shows minute by minute."""

import datetime as dt
import itertools
import zoneinfo

import pytest
from croniter import croniter
from hypothesis import given, settings
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


@pytest.mark.parametrize("zone", [COPENHAGEN, NEW_YORK, LORD_HOWE, "UTC"])
def test_every_15_minutes_stay_so_all_year(zone: str) -> None:
    moments = list(itertools.islice(Rule(text="*/15 * * * *", zone=zone).runs(at("2027-03-01T00:00Z")), 23_000))
    assert {later.ms - earlier.ms for earlier, later in itertools.pairwise(moments)} == {15 * 60_000}


def by_the_minute(rule: Rule, start: dt.datetime, minutes: int) -> list[Instant]:
    """Return the runs in a span by looking at every minute of it: the same rules, told in another way."""
    zone = zoneinfo.ZoneInfo(rule.zone)
    expression = ALIASES.get(rule.text, rule.text)
    hour = expression.split()[1]
    found = []
    before = 4 * 60
    latest = (
        (start - dt.timedelta(minutes=before)).astimezone(zone).replace(tzinfo=None)
    )  # the clock has shown all up to here
    for minute in range(-before, minutes + 1):
        moment = start + dt.timedelta(minutes=minute)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        if hour == "*" or hour.startswith("*/"):
            is_run = croniter.match(expression, wall)
        else:
            span = int((wall - latest) / dt.timedelta(minutes=1))
            shown = [latest + dt.timedelta(minutes=step) for step in range(1, span + 1)]
            is_run = any(croniter.match(expression, each) for each in shown)
            latest = max(latest, wall)
        if is_run and minute > 0:
            found.append(Instant.from_datetime(moment))
    return found


hours = st.sampled_from(["*", "*/2", "*/5", "0", "1", "2", "3", "1,2", "1-3", "0-23/2", "2-4"])
minutes = st.sampled_from(["*", "*/15", "*/7", "0", "30", "59", "0,30", "15,45", "1-3"])
changes = st.sampled_from(
    [
        (COPENHAGEN, dt.datetime(2027, 3, 28, 1, tzinfo=dt.UTC)),
        (COPENHAGEN, dt.datetime(2027, 10, 31, 1, tzinfo=dt.UTC)),
        (NEW_YORK, dt.datetime(2027, 3, 14, 7, tzinfo=dt.UTC)),
        (NEW_YORK, dt.datetime(2027, 11, 7, 6, tzinfo=dt.UTC)),
        (LORD_HOWE, dt.datetime(2027, 4, 3, 15, tzinfo=dt.UTC)),
        (LORD_HOWE, dt.datetime(2027, 10, 2, 15, 30, tzinfo=dt.UTC)),
    ]
)


@settings(max_examples=40, deadline=None)
@given(minutes, hours, changes, st.integers(-180, 60))
def test_none_skipped_and_none_doubled(minute: str, hour: str, change: tuple[str, dt.datetime], begin: int) -> None:
    zone, moment = change
    rule = Rule(text=f"{minute} {hour} * * *", zone=zone)
    start = moment + dt.timedelta(minutes=begin)
    expected = by_the_minute(rule, start, 300)
    end = Instant.from_datetime(start + dt.timedelta(minutes=300))
    found = list(itertools.takewhile(lambda run: run <= end, rule.runs(Instant.from_datetime(start))))
    assert found == expected
    assert all(earlier < later for earlier, later in itertools.pairwise(found))


@given(st.integers(0, NEVER.ms - 1), st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 29 2 *", "H H * * H"]))
def test_the_next_run_is_always_later(moment: int, text: str) -> None:
    assert Rule(text=text, zone=COPENHAGEN, name="a").next_after(Instant(moment)) > Instant(moment)


def test_there_is_an_end() -> None:
    assert Rule(text="0 0 * * *").next_after(at("9999-12-31T12:00Z")) == NEVER


# --- H -------------------------------------------------------------------------------------------------------------


def test_a_name_fixes_what_h_stands_for() -> None:
    first = {
        name: Rule(text="H H * * *", name=name).next_after(at("2027-01-01T00:00Z")) for name in map(str, range(100))
    }
    again = {name: Rule(text="H H * * *", name=name).next_after(at("2027-01-01T00:00Z")) for name in first}
    assert first == again
    assert len(set(first.values())) > 80
    for name in first:
        (run,) = runs(Rule(text="H(10-20) 4 * * *", name=name), "2027-01-01T00:00Z", 1)
        assert "T04:10" <= run[10:16] <= "T04:20"


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
        ("R * * * *", "another time at each look"),
        ("r(0-5) 3 * * *", "another time at each look"),
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
