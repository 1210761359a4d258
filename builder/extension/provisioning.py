"""What a provisioner tells of the workers that it asks an engine for, tag 210: so that who looks at a queue sees why it waits."""

import enum
from typing import ClassVar

from attrs import frozen

from builder.extension import Request
from builder.messages import message
from builder.model import Instant, check_name
from builder.planning import check_count

MAX_KEPT = 3_600_000
"""Milliseconds for which something is believed of a provisioner that says nothing more."""

MAX_NAME = 50
"""Characters of what a provisioner and its engine are called."""

MAX_TOLD = 8
"""Most groups of workers, and most reasons why there are no more."""

MAX_REASON = 200
"""Characters of a reason: it stands in a line of the terminal."""


class Stage(enum.Enum):
    """How far a worker is that was asked for, and has not come yet."""

    PENDING = "pending"
    """Its engine has not started it."""

    STARTING = "starting"


@frozen(kw_only=True)
class Coming:
    """So many workers that have not come; ``reason`` is the engine's own, why it has not started them."""

    numbered: ClassVar[bool] = True
    count: int
    stage: Stage
    reason: str


@frozen(kw_only=True)
class Provision:
    """What was asked of an ``engine`` for a platform by the provisioner ``by``.

    ``since`` is when the first of those was asked for that are still to come. ``why_not`` says why there are not more.
    """

    numbered: ClassVar[bool] = True
    by: str
    engine: str
    since: Instant | None = None
    coming: tuple[Coming, ...] = ()
    why_not: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise InvalidOptions for more than is told, and InvalidName."""
        for name, what in ((self.by, "provisioner"), (self.engine, "engine")):
            check_name(name, what=f"name of the {what}")
            check_count(len(name), 1, MAX_NAME, f"the characters of the name of the {what}")
        check_count(len(self.coming), 0, MAX_TOLD, "the groups of workers that come")
        check_count(len(self.why_not), 0, MAX_TOLD, "the reasons why there are not more")
        for reason in (*(group.reason for group in self.coming), *self.why_not):
            check_count(len(reason), 0, MAX_REASON, "the characters of a reason")


@message
@frozen(kw_only=True)
class TellProvision(Request):
    """Have those who look at a platform see that, in place of what the same provisioner told before.

    It is believed for so many milliseconds.
    """

    tag: ClassVar[int] = 210
    platform: str
    provision: Provision
    keep: int

    def check(self) -> None:
        """Raise InvalidOptions for what is out of range, and InvalidName."""
        check_name(self.platform, what="platform")
        self.provision.check()
        check_count(self.keep, 1, MAX_KEPT, "the milliseconds for which it is believed")
