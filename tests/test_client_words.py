import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model import NEVER, Aborted, Exited, Instant, Result, Signalled, Stopped
from builder_client import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"),
        ("2030-01-31t12:00:00z", "2030-01-31T12:00:00Z"),
        ("2030-01-31T12:00:00.25Z", "2030-01-31T12:00:00.250Z"),
        ("2030-01-31T12:00:00.123456789Z", "2030-01-31T12:00:00.123Z"),
        ("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00Z"),
        ("2030-01-31T12:00:00-09:30", "2030-01-31T21:30:00Z"),
        ("2030-01-31T00:30:00+01:00", "2030-01-30T23:30:00Z"),
        ("2030-01-31T12:00+02:00", "2030-01-31T10:00:00Z"),
        ("2030-01-31 12:00", "2030-01-31T12:00:00Z"),
        ("2030-01-31 12:00 +02:00", "2030-01-31T10:00:00Z"),
        (" 2030-01-31 ", "2030-01-31T00:00:00Z"),
        ("9999-12-31T23:59:59.999Z", NEVER.isoformat()),
    ],
)
def test_times_are_read(text: str, expected: str) -> None:
    assert words.parse_time(text).isoformat() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2030",
        "2030-01",
        "20300131",
        "2030-13-01",
        "2030-02-30",
        "2030-01-31T24:00:00Z",
        "2030-01-31T12:60Z",
        "2030-01-31T12:00:60Z",
        "2030-01-31T12",
        "2030-01-31T12:00:00+24:00",
        "2030-01-31T12:00:00+01:60",
        "2030-01-31T12:00:00 CET",
        "0000-01-01",
        "0001-01-01T00:00:00+00:01x",
        "9999-12-31T23:59:00-00:01",
        "٢٠٣٠-٠١-٠١",
        "2030-01-31\n2030-01-31",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a time like|there is no such time"):
        words.parse_time(text)


@given(st.datetimes(timezones=st.timezones()).map(lambda moment: moment.replace(microsecond=0)))
def test_a_time_in_any_zone_is_read_as_the_same_instant(moment: dt.datetime) -> None:
    offset = moment.utcoffset()
    assert offset is not None
    if offset.total_seconds() % 60:
        return  # zones of the 19th century, which RFC 3339 can't write
    text = moment.isoformat()
    try:
        expected = Instant.from_datetime(moment)
    except (ValueError, OverflowError):
        return  # beyond the year 9999 in UTC
    assert words.parse_time(text) == expected


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(words.parse_time(text), Instant)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0.000us"),
        (999_999, "999.999us"),
        (1_000_000, "1.000ms"),
        (95_161_006, "95.161ms"),
        (1_558_999_637, "1.558s"),
        (59_999_999_999, "59.999s"),
        (62_000_000_000, "1m02s"),
        (3_600_000_000_000, "1h00m"),
        (90_000_000_000_000, "1d01h"),
        (-1_500_000_000, "-1.500s"),
    ],
)
def test_time_since_the_start(ns: int, text: str) -> None:
    assert words.since_start(ns) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (4800, "1 h 20 min"),
        (86400, "1 d"),
        (2 * 86400 + 4 * 3600, "2 d 4 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert words.duration(seconds * 1000) == text


def test_a_run_that_is_late_is_due() -> None:
    assert words.until(Instant(0), Instant(0)) == "due"
    assert words.until(Instant(3 * 3600 * 1000), Instant(0)) == "in 3 h"


@pytest.mark.parametrize(
    ("result", "text", "status"),
    [
        (Exited(code=0), "exited 0", 0),
        (Exited(code=3), "exited 3", 3),
        (Exited(code=255), "exited 255", 255),
        (Exited(code=256), "exited 256", 1),
        (Exited(code=-1), "exited -1", 255),
        (Signalled(signal=-7), "killed by signal KILL (9)", 137),
        (Signalled(signal=-11), "killed by signal TERM (15)", 143),
        (Signalled(signal=9), "killed by signal KILL (9)", 137),
        (Signalled(signal=999), "killed by signal 999", 125),
        (Signalled(signal=0), "killed by signal 0", 125),
        (Stopped(signal=-17), "stopped by signal TSTP (20)", 148),
        (Aborted(message="timeout"), "aborted: timeout", 125),
        (Aborted(message="a\x1b[2J"), "aborted: a\\x1b[2J", 125),
        (None, None, 125),
    ],
)
def test_results(result: Result | None, text: str, status: int) -> None:
    assert words.exit_status(result) == status
    if result is not None:
        assert words.result(result) == text


@pytest.mark.parametrize("text", ["", "-", "xyz", "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22f", "../etc"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no uuid"):
        words.parse_id(text)


def test_ids_are_read_in_any_writing() -> None:
    digits = words.parse_id("323B2A40-25d1-4f8e-90af-a4e2b9fd7f22")
    assert str(words.whole_uuid(digits)) == "323b2a40-25d1-4f8e-90af-a4e2b9fd7f22"
    assert words.parse_id("323b2a40-2") == "323b2a402"
    assert words.whole_uuid("323b2a402") is None
