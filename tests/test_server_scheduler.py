"""builder-server's scheduler: how long it sleeps, which runs were missed, and when what failed is tried again."""

import pytest

from builder.model import NEVER, Instant
from builder_server.scheduler import backoff, latest_plan, missed_before, time_until

START = 1_795_194_796_123  # 2026-11-20T17:13:16.123Z


@pytest.mark.parametrize(
    ("looked", "missed"),
    [
        (None, True),
        (0, False),
        (-60_000, False),
        (-120_000, False),
        (-120_001, True),
        (-(10**10), True),
        (60_000, False),
    ],
)
def test_what_was_due_while_nobody_looked(looked: int | None, missed: bool) -> None:  # noqa: FBT001
    now = Instant(START)
    found = missed_before(None if looked is None else Instant(START + looked), now)
    assert found == (now if missed else None)


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
