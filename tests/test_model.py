"""model: names, paths, text from outside, results, signals, instants and periods."""

import datetime as dt
import signal
import unicodedata

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, InvalidName
from builder.model import (
    MAX_NAME_BYTES,
    MAX_NAME_CHARACTERS,
    MAX_PATH_BYTES,
    NEVER,
    Aborted,
    Exited,
    Instant,
    Period,
    Result,
    Signalled,
    Stopped,
    check_artifact_path,
    check_name,
    parse_result,
    posix_signal,
    printable,
    raw,
    text,
    wire_signal,
)
from builder_server.names import directory_name

YEAR_0 = Instant(-62_167_219_200_000)

# --- text ----------------------------------------------------------------------------------------------------------


@given(st.binary())
def test_any_bytes_survive_as_text(data: bytes) -> None:
    assert raw(text(data)) == data


@given(st.one_of(st.text(), st.binary(), st.binary().map(text)))
def test_printable_is_printable(value: str | bytes) -> None:
    shown = printable(value)
    assert shown.isprintable()
    shown.encode("utf-8")  # no surrogate is left


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_printable_leaves_what_can_be_shown(value: str) -> None:
    assert printable(value) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a b", "a b"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\u202e", r"\u202e"),
        ("\x9b", r"\x9b"),
        ("пример 🐫", "пример 🐫"),
    ],
)
def test_printable(value: str | bytes, shown: str) -> None:
    assert printable(value) == shown


# --- names and paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a", "debian-12", "no-platform", "a b", "...", "-x", "пример", "🐫" * 63, "a" * MAX_NAME_CHARACTERS, "a\\b", "%s"],
)
def test_good_names(name: str) -> None:
    check_name(name, what="job name")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("a" * (MAX_NAME_CHARACTERS + 1), "more than 128 characters"),
        ("🐫" * 129, "more than 128 characters"),
        ("a/b", "slash"),
        ("/", "slash"),
        (".", "reserved"),
        ("..", "reserved"),
        ("state", "reserved"),
        ("a\0", "control"),
        ("a\nb", "control"),
        ("\x1b", "control"),
        ("\x7f", "control"),
        ("\x85", "control"),
        (text(b"\xff"), "not UTF-8"),
        (text(b"\xed\xa0\x80"), "not UTF-8"),
    ],
)
def test_bad_names(name: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=f"^invalid platform: .*{reason}") as caught:
        check_name(name, what="platform", reserved=frozenset({"state"}))
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, BuilderError)


def test_long_names_have_directories_of_their_own() -> None:
    names = ["🐫" * 127 + last for last in "ab"] + ["x" * 128]
    directories = [directory_name(name) for name in names]
    assert len(set(directories)) == 3
    assert max(len(raw(directory)) for directory in directories) <= MAX_NAME_BYTES
    assert directories[-1] == names[-1]


@given(strategies.strings)
def test_a_name_that_passes_is_a_file_name(name: str) -> None:
    try:
        check_name(name, what="name")
    except InvalidName as error:
        assert str(error).isprintable()  # noqa: PT017  no error at all is fine here
        return
    assert 0 < len(name) <= 128
    assert 0 < len(raw(directory_name(name))) <= MAX_NAME_BYTES
    assert name not in (".", "..")
    assert not any(char == "/" or unicodedata.category(char) == "Cc" for char in name)


@pytest.mark.parametrize(
    "path", ["a", "bin/hello.hvt", ".hidden", "a/.b", "a/...", "a b", "-rf", "a\nb", text(b"\xff"), "a" * 255]
)
def test_good_paths(path: str) -> None:
    check_artifact_path(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/", "absolute"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        (".", "component"),
        ("..", "component"),
        ("../a", "component"),
        ("a/../b", "component"),
        ("a/..", "component"),
        ("a//b", "component"),
        ("a/", "component"),
        ("./a", "component"),
        ("a/./b", "component"),
        ("a\0b", "NUL"),
        ("a" * 256, "component has more than 255 bytes"),
        ("ä" * 128, "component has more than 255 bytes"),
        ("a/" * 2048, "more than 4095 bytes"),
    ],
)
def test_bad_paths(path: str, reason: str) -> None:
    with pytest.raises(InvalidName, match=reason) as caught:
        check_artifact_path(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@given(strategies.strings | st.lists(st.sampled_from(["a", ".", "..", "", "b\n"])).map("/".join))
def test_a_path_that_passes_stays_below(path: str) -> None:
    try:
        check_artifact_path(path)
    except InvalidName as error:
        assert str(error).isprintable()  # noqa: PT017  no error at all is fine here
        return
    assert len(raw(path)) <= MAX_PATH_BYTES
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))


# --- results and signals -------------------------------------------------------------------------------------------


@given(strategies.results)
def test_a_result_is_read_from_its_text(result: Result) -> None:
    assert parse_result(str(result)) == result


@pytest.mark.parametrize(
    ("shown", "result"),
    [
        ("exited 3", Exited(code=3)),
        ("exited -1", Exited(code=-1)),
        ("signalled -7", Signalled(signal=-7)),
        ("stopped 19", Stopped(signal=19)),
        ("execution aborted: timeout", Aborted(message="timeout")),
        ("execution aborted: ", Aborted(message="")),
        ("execution aborted: two\nlines\n", Aborted(message="two\nlines\n")),
        ("exited 3\n", None),
        ("exited", None),
        ("exited three", None),
        ("exited ٣", None),
        ("exited +3", None),
        (" exited 3", None),
        ("execution aborted", None),
        ("", None),
        ("exited " + "1" * 5000, None),
    ],
)
def test_texts_of_results(shown: str, result: Result | None) -> None:
    assert parse_result(shown) == result
    if result is not None:
        assert str(result) == shown


@given(st.text())
def test_any_text_is_a_result_or_none(value: str) -> None:
    result = parse_result(value)
    assert result is None or str(result) == value


@pytest.mark.parametrize(
    ("posix", "wire"),
    [
        (signal.SIGABRT, -1),
        (signal.SIGHUP, -4),
        (signal.SIGINT, -6),
        (signal.SIGKILL, -7),
        (signal.SIGSEGV, -10),
        (signal.SIGTERM, -11),
        (signal.SIGCHLD, -14),
        (signal.SIGSTOP, -16),
        (signal.SIGXFSZ, -28),
    ],
)
def test_signals(posix: int, wire: int) -> None:
    assert wire_signal(posix) == wire
    assert posix_signal(wire) == posix


@pytest.mark.parametrize("number", [0, 64, 200, -29, -1000])
def test_signals_that_ocaml_does_not_know_keep_their_number(number: int) -> None:
    assert wire_signal(number) == number
    assert posix_signal(number) == number


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_every_signal_of_this_system_survives_the_way_there_and_back(number: int) -> None:
    assert posix_signal(wire_signal(number)) == number


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instant", "shown"),
    [
        (YEAR_0, "0000-01-01T00:00:00Z"),
        (Instant(YEAR_0.ms + 59 * 86_400_000 + 1), "0000-02-29T00:00:00.001Z"),
        (Instant(-62_135_596_800_001), "0000-12-31T23:59:59.999Z"),
        (Instant(-62_135_596_800_000), "0001-01-01T00:00:00Z"),
        (Instant(-1), "1969-12-31T23:59:59.999Z"),
        (Instant(0), "1970-01-01T00:00:00Z"),
        (Instant(1500), "1970-01-01T00:00:01.500Z"),
        (NEVER, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_iso_8601(instant: Instant, shown: str) -> None:
    assert instant.isoformat() == shown


@given(strategies.instants)
def test_iso_8601_is_read_back(instant: Instant) -> None:
    year, moment = instant.calendar()
    if year > 0:
        assert dt.datetime.fromisoformat(instant.isoformat()) == instant.to_datetime() == moment
        assert Instant.from_datetime(moment) == instant
    else:
        # the year 0 of the proleptic calendar has the same days as the year 400
        assert moment.year == 400
        assert instant.isoformat().startswith("0000-")
        with pytest.raises(OverflowError):
            instant.to_datetime()


@given(strategies.instants, strategies.instants)
def test_instants_are_ordered_as_their_texts_are(one: Instant, other: Instant) -> None:
    assert (one < other) == (one.ms < other.ms)
    assert (one.isoformat()[:19] < other.isoformat()[:19]) <= (one < other)


@given(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.timezones() | st.just(dt.UTC)))
def test_microseconds_are_cut(moment: dt.datetime) -> None:
    left_over = moment - Instant.from_datetime(moment).to_datetime()
    assert dt.timedelta(0) <= left_over < dt.timedelta(milliseconds=1)


@pytest.mark.parametrize("ms", [YEAR_0.ms - 1, NEVER.ms + 1, 2**63])
def test_an_instant_beyond_the_calendar(ms: int) -> None:
    with pytest.raises(ValueError, match="years 0 and 9999"):
        Instant(ms)


def test_a_naive_datetime_is_no_instant() -> None:
    with pytest.raises(TypeError):
        Instant.from_datetime(dt.datetime(2026, 1, 1))


def test_never_saturates() -> None:
    assert NEVER.plus(dt.timedelta(milliseconds=1)) == NEVER
    assert NEVER.plus(dt.timedelta.max) == NEVER
    assert YEAR_0.plus(dt.timedelta.max) == NEVER
    assert Instant(0).plus(dt.timedelta(seconds=1.5)) == Instant(1500)
    assert NEVER.plus(dt.timedelta(milliseconds=-1)) == Instant(NEVER.ms - 1)


@given(strategies.instants, strategies.periods)
def test_the_next_run(start: Instant, period: Period) -> None:
    following = period.first_after(start)
    if period is Period.NEVER:
        assert following == NEVER
    else:
        assert period.duration is not None
        assert following == NEVER or following.ms - start.ms == period.duration / dt.timedelta(milliseconds=1)
        assert following > start or start == NEVER


def test_periods() -> None:
    hours = {period: period.duration and period.duration / dt.timedelta(hours=1) for period in Period}
    assert hours == {Period.HOURLY: 1, Period.DAILY: 24, Period.WEEKLY: 168, Period.NEVER: None}
