"""builder-server's scheduler: how long it sleeps, which runs were missed, and when what failed is tried again."""

import datetime as dt

import pytest

from builder.model import NEVER, Instant
from builder_server.scheduler import backoff, jump, latest_plan, missed_before, time_until

START = 1_795_194_796_123  # 2026-11-20T17:13:16.123Z


@pytest.mark.parametrize(
    ("unwatched", "missed"), [(None, True), (0.0, False), (60.0, False), (120.0, False), (120.001, True), (1e7, True)]
)
def test_what_was_due_while_nobody_looked(unwatched: float | None, missed: bool) -> None:  # noqa: FBT001
    now = Instant(START)
    assert missed_before(unwatched, now) == (now if missed else None)


@pytest.mark.parametrize(
    ("by_the_wall", "elapsed", "jumped"),
    [
        (60.0, 60.0, None),
        (120.0, 60.0, None),
        (0.0, 60.0, None),
        (120.001, 60.0, 60.001),
        (-0.001, 60.0, -60.001),
        (86_400.0, 86_400.0, None),
        (86_400.0, 60.0, 86_340.0),
        (-86_400.0, 60.0, -86_460.0),
    ],
)
def test_how_far_a_clock_was_set(by_the_wall: float, elapsed: float, jumped: float | None) -> None:
    found = jump(Instant(START), Instant(START + round(by_the_wall * 1000)), elapsed)
    assert found == (None if jumped is None else dt.timedelta(seconds=jumped))


def test_what_failed_waits_longer_each_time() -> None:
    assert [backoff(retry).total_seconds() / 60 for retry in range(6)] == [1, 4, 16, 64, 240, 240]


def test_a_clock_that_was_never_set_says_nothing_of_what_was_planned() -> None:
    assert latest_plan(Instant(START)) == Instant(START + 60_000)
    assert latest_plan(Instant(0)) is None


@pytest.mark.parametrize(
    ("run", "now", "seconds"),
    [(0, 0, 0), (0, 1, 0), (1, 0, 0.001), (59_999, 0, 59.999), (60_000, 0, 60), (60_001, 0, 60), (10**12, 0, 60)],
)
def test_the_sleep_until_a_run(run: int, now: int, seconds: float) -> None:
    assert time_until(Instant(run), Instant(now)) == seconds


def test_the_sleep_until_never_is_bounded() -> None:
    assert time_until(NEVER, Instant(-62_167_219_200_000)) == 60
