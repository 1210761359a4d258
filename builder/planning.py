"""How a job is run: when, before which others, how often again, and within which limits. Values, and what they mean."""

import enum
import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen

from builder.errors import InvalidOptions
from builder.model import NEVER, Instant, Period
from builder.needs import Need, together
from builder.spread import place

if TYPE_CHECKING:
    from builder.cron import Rule

MAX_PRIORITY = 9
"""The priority that goes first; the lowest is 0."""

DEFAULT_PRIORITY = 5

MAX_RETRIES = 10
"""Most runs more of a job that fails."""

MAX_AFTER = 64
"""Most jobs that one job may wait for."""

MAX_LIMIT = 30 * 24 * 3600 * 1000
"""Milliseconds of the longest time limit, 30 days."""

_RULES_KEPT = 1000

_HAS_H = re.compile(r"\bh\b", re.IGNORECASE)
"""Without it a rule means the same for all jobs."""


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

    @classmethod
    def parse(cls, text: str) -> "JobReference":
        """Read JOB or JOB@PLATFORM: what stands behind the last @ is the platform, and nothing there is any platform."""
        name, at, platform = text.rpartition("@")
        return cls(name=name, platform=platform or None) if at else cls(name=text)

    def __str__(self) -> str:
        """Return what ``parse`` reads; a platform with an @ in its name can't be told so."""
        return f"{self.name}@{self.platform or ''}" if self.platform or "@" in self.name else self.name


@frozen(kw_only=True)
class Cron:
    """A cron rule as it is written, and the name of the time zone whose clocks it follows. See ``builder.cron``."""

    numbered: ClassVar[bool] = True
    rule: str
    zone: str = "UTC"


def check_count(value: int, low: int, high: int, what: str) -> None:
    """Raise InvalidOptions unless a number lies within its bounds."""
    if not low <= value <= high:
        raise InvalidOptions(f"{what} must lie between {low} and {high}")


def _between(low: int, high: int, what: str) -> Any:
    def check(_options: object, _attribute: object, value: int | None) -> None:
        if value is not None:
            check_count(value, low, high, what)

    return check


@frozen(kw_only=True)
class JobOptions:
    """How a job is run.

    ``period`` is the one that was asked for, or None, and stays beside a ``cron`` rule, which counts instead of it. With
    ``spread`` a period's runs lie at a place in it that the job's name fixes. ``time_limit`` and ``max_silent`` are in
    milliseconds; None is the server's own limit, or none. ``needs`` come besides those that the job's script names.
    """

    numbered: ClassVar[bool] = True
    period: Period | None = None
    cron: Cron | None = None
    spread: bool = False
    missed: Missed = Missed.RUN_ONCE
    priority: int = field(default=DEFAULT_PRIORITY, validator=_between(0, MAX_PRIORITY, "a priority"))
    retries: int = field(default=0, validator=_between(0, MAX_RETRIES, "retries"))
    time_limit: int | None = field(default=None, validator=_between(1, MAX_LIMIT, "milliseconds of a time limit"))
    max_silent: int | None = field(default=None, validator=_between(1, MAX_LIMIT, "milliseconds of silence"))
    after: tuple[JobReference, ...] = field(default=())
    paused: bool = False
    needs: tuple[Need, ...] = field(default=(), converter=together)

    @after.validator
    def _bounded(self, _attribute: object, value: tuple[JobReference, ...]) -> None:
        if len(value) > MAX_AFTER:
            raise InvalidOptions(f"a job may wait for {MAX_AFTER} others at most")
        if len(set(value)) < len(value):
            raise InvalidOptions("a job is named twice among those to wait for")

    def check(self, name: str) -> None:
        """Raise InvalidOptions unless a job of that name can have these options."""
        if self.cron is not None and self.spread:
            raise InvalidOptions("--spread is for periods; in a cron rule, H spreads")
        if any(reference.name == name for reference in self.after):
            raise InvalidOptions("a job can't wait for itself")
        if self.cron is not None:
            self.rule(name)

    @property
    def runs_every(self) -> Period:
        """The period that counts where there is no rule: a job after others runs at no time that nobody asked for."""
        return self.period or (Period.NEVER if self.after and not self.spread else Period.DAILY)

    def rule(self, name: str) -> "Rule | None":
        """Return the cron rule of a job of that name, or None if it has a period. Raises InvalidRule."""
        return None if self.cron is None else _rule(self.cron, name if _HAS_H.search(self.cron.rule) else "")

    def next_after(self, name: str, start: Instant, now: Instant) -> Instant:
        """Return the first run later than ``now``: on the grid that ``start`` and the period make, or by its rule.

        Runs that were missed are not made up for one by one. NEVER where there is none.
        """
        if (rule := self.rule(name)) is not None:
            return _next_run(rule, now)
        period = self.runs_every
        if period.duration is None:
            return period.first_after(now)
        step = int(period.duration.total_seconds()) * 1000
        begin = place(name, step // 1000) * 1000 if self.spread else start.ms
        return Instant(min(now.ms + step - (now.ms - begin) % step, NEVER.ms))

    def runs(self, name: str, first: Instant, now: Instant) -> Iterator[Instant]:
        """Yield the run that is planned first, which may be overdue, and those that come after it and after ``now``."""
        while first < NEVER:
            yield first
            first = self.next_after(name, first, max(first, now))

    def classic_period(self, name: str, now: Instant) -> Period:
        """Return the period that a classic peer is shown."""
        rule = self.rule(name)
        return self.runs_every if rule is None else _nearest_period(rule, now)


@functools.lru_cache(maxsize=_RULES_KEPT)
def _rule(cron: Cron, name: str) -> "Rule":
    from builder.cron import Rule  # croniter, which whoever only passes options on need not wait for

    return Rule(text=cron.rule, zone=cron.zone, name=name)


# Many jobs with the same rule are due, or added, together.


@functools.lru_cache(maxsize=_RULES_KEPT)
def _next_run(rule: "Rule", now: Instant) -> Instant:
    return rule.next_after(now)


@functools.lru_cache(maxsize=_RULES_KEPT)
def _nearest_period(rule: "Rule", now: Instant) -> Period:
    return rule.nearest_period(now)
