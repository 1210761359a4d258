"""How a job is run: when, before which others, how often again, and within which limits. Values, and what they mean."""

import enum
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from builder.errors import BuilderError
from builder.model import Instant, Job, Period, raw

if TYPE_CHECKING:
    from builder.cron import Rule

MAX_PRIORITY = 9
DEFAULT_PRIORITY = 5
"""Priorities go from 0 to 9; 9 is first."""

MAX_RETRIES = 10
MAX_AFTER = 64
"""Jobs that one job may wait for."""

MAX_LIMIT = 30 * 24 * 3600 * 1000
"""Milliseconds of the longest time limit, 30 days."""

_SPREAD_CYCLE = 2**32


class InvalidOptions(BuilderError, ValueError):
    """Options of a job that contradict each other, or are out of range; the text says what to write."""

    exit_code = 2


class Missed(enum.Enum):
    """What becomes of runs whose time came while the server was down."""

    RUN_ONCE = "run-once"
    SKIP = "skip"


@frozen(kw_only=True)
class JobReference:
    """A job, on one platform if one is named."""

    numbered: ClassVar[bool] = True
    name: str
    platform: str | None = None

    def __str__(self) -> str:
        return self.name if self.platform is None else f"{self.name}@{self.platform}"


@frozen(kw_only=True)
class Cron:
    """A cron rule as it is written, and the name of the time zone whose clocks it follows. See ``builder.cron``."""

    numbered: ClassVar[bool] = True
    rule: str
    zone: str = "UTC"


def _between(low: int, high: int, what: str) -> Any:
    def check(_options: object, _attribute: object, value: int | None) -> None:
        if value is not None and not low <= value <= high:
            raise InvalidOptions(f"{what} must be a number from {low} to {high}")

    return check


@frozen(kw_only=True)
class JobOptions:
    """How a job is run.

    ``period`` counts where there is no ``cron``. With ``spread`` a period's runs lie at a place in it that the job's name
    fixes. ``time_limit`` and ``max_silent`` are in milliseconds; None is the server's own limit, or none.
    """

    numbered: ClassVar[bool] = True
    period: Period = Period.DAILY
    cron: Cron | None = None
    spread: bool = False
    missed: Missed = Missed.RUN_ONCE
    priority: int = field(default=DEFAULT_PRIORITY, validator=_between(0, MAX_PRIORITY, "a priority"))
    retries: int = field(default=0, validator=_between(0, MAX_RETRIES, "retries"))
    time_limit: int | None = field(default=None, validator=_between(1, MAX_LIMIT, "milliseconds of a time limit"))
    max_silent: int | None = field(default=None, validator=_between(1, MAX_LIMIT, "milliseconds of silence"))
    after: tuple[JobReference, ...] = field(default=())
    paused: bool = False

    @after.validator
    def _bounded(self, _attribute: object, value: tuple[JobReference, ...]) -> None:
        if len(value) > MAX_AFTER:
            raise InvalidOptions(f"a job may wait for {MAX_AFTER} others at most")
        if len(set(value)) < len(value):
            raise InvalidOptions("a job is named twice among those to wait for")

    def check(self, name: str) -> None:
        """Raise InvalidOptions or InvalidRule unless a job of that name can have these options."""
        if self.cron is not None and self.spread:
            raise InvalidOptions("--spread is for periods; in a cron rule, H spreads")
        if any(reference.name == name for reference in self.after):
            raise InvalidOptions("a job can't wait for itself")
        if self.cron is not None:
            self.rule(name)

    def rule(self, name: str) -> "Rule | None":
        """Return the cron rule of a job of that name, or None if it has a period. Raises InvalidRule."""
        from builder.cron import Rule  # croniter, which whoever only passes options on need not wait for

        return None if self.cron is None else Rule(text=self.cron.rule, zone=self.cron.zone, name=name)

    def next_after(self, name: str, start: Instant, now: Instant) -> Instant:
        """Return the first run later than ``now`` of a job whose periods are counted from ``start``.

        NEVER where there is none.
        """
        if (rule := self.rule(name)) is not None:
            return rule.next_after(now)
        if self.period.duration is None:
            return self.period.first_after(now)
        step = int(self.period.duration.total_seconds()) * 1000
        begin = spread_offset(name, step) if self.spread else start.ms
        return Instant(now.ms + step - (now.ms - begin) % step)

    def classic_period(self, name: str, now: Instant) -> Period:
        """Return the period that a classic peer is shown."""
        rule = self.rule(name)
        return self.period if rule is None else rule.nearest_period(now)


def spread_offset(name: str, step: int) -> int:
    """Return a place in a period of ``step`` milliseconds that the name fixes, in whole seconds."""
    digest = hashlib.sha256(raw(name)).digest()
    return int.from_bytes(digest[:4], "big") * (step // 1000) // _SPREAD_CYCLE * 1000


@frozen(kw_only=True)
class PlannedJob:
    """A job in the schedule as it is written down: what is run, and how."""

    numbered: ClassVar[bool] = True
    job: Job
    options: JobOptions
