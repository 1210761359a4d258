"""The clock of a server under test, which stands where the test sets it."""

from attrs import define

from builder.model import Instant

NOW = Instant(1_795_194_796_123)  # 2026-11-20T17:13:16.123Z


@define
class Clock:
    """A wall clock: what ``run_server`` takes for ``now``."""

    now: Instant = NOW

    def __call__(self) -> Instant:
        return self.now
