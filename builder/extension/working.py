"""Messages of a worker that loses nothing, tags 160 to 168 and 211: what lets a build outlive its connection.

An attempt is known by its uuid, and belongs to whoever has its secret. Console lines travel as Output messages with the
worker's own times, numbered by their order: the server says how many it has, and the worker goes on with the next one. A
result is sent from its begin until the server says that it is recorded.
"""

from collections.abc import Collection
from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.errors import InvalidOptions
from builder.messages import KIB, MAX_SCRIPT, Message, message
from builder.model import ScriptJob
from builder.planning import check_count
from builder.quantities import MAX_DURATION

SECRET_SIZE = 32
"""Bytes of the secret of an attempt."""

ALIVE_INTERVAL = 15.0
"""Seconds after which each side of a running build says that it lives."""

SILENCE = 45.0
"""Seconds in which nothing comes, after which the other side counts as gone: two signs of life were lost."""


MAX_FACTS = 64
"""Most facts that a worker tells of itself."""

MAX_FACT_NAME = 64
MAX_FACT_VALUE = 256
"""Characters of the name of a fact, and of its value."""


@frozen(kw_only=True)
class Fact:
    """Something that a worker tells of itself, such as ``arch`` and ``x86_64``. A label of its operator is ``label.NAME``.

    Numbers are decimal, sizes in bytes, truths ``yes`` and ``no``.
    """

    numbered: ClassVar[bool] = True
    name: str
    value: str


def check_facts(facts: Collection[Fact]) -> None:
    """Raise InvalidOptions for more facts than are told, larger ones, or two of one name."""
    check_count(len(facts), 0, MAX_FACTS, "the number of a worker's facts")
    if len({fact.name for fact in facts}) < len(facts):
        raise InvalidOptions("a worker tells each fact once")
    for fact in facts:
        check_count(len(fact.name), 1, MAX_FACT_NAME, "the characters of a fact's name")
        check_count(len(fact.value), 0, MAX_FACT_VALUE, "the characters of a fact's value")


@message
@frozen(kw_only=True)
class AskJob(Message):
    """A worker of that platform is ready for a job; ``worker`` is what its operator calls it.

    With ``wait`` it is told that there is none after so many milliseconds: who breaks off by itself may break off while a job
    is on its way. ``may_leave``: it knows other servers, and is told to go there where this one is drained.
    """

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 160
    max_size: ClassVar[int] = 128 * KIB
    platform: str
    worker: str
    facts: tuple[Fact, ...] = ()
    wait: int | None = None
    may_leave: bool = False

    def check(self) -> None:
        """Raise InvalidOptions for more facts than are told, larger ones, two of one name, or a time that can't be waited for."""
        check_facts(self.facts)
        if self.wait is not None:
            check_count(self.wait, 1, round(MAX_DURATION * 1000), "the milliseconds for which a worker waits")


@message
@frozen(kw_only=True)
class GiveJob(Message):
    """The job, under the uuid of this attempt, with its limits in milliseconds as far as there are any."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 161
    max_size: ClassVar[int] = MAX_SCRIPT + 64 * KIB
    uuid: UUID
    job: ScriptJob
    secret: bytes
    time_limit: int | None = None
    max_silent: int | None = None


@message
@frozen(kw_only=True)
class Return(Message):
    """A worker comes back to its attempt, which began ``elapsed`` milliseconds ago by a clock that nobody sets.

    ``has_ended`` says whether the job is over: then no limit of time holds any more.
    """

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 162
    uuid: UUID
    secret: bytes
    elapsed: int
    has_ended: bool = False


@message
@frozen(kw_only=True)
class Continue(Message):
    """The attempt is still the worker's; of its console the server has so many lines."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 163
    lines: int


@message
@frozen(kw_only=True)
class ResultStored(Message):
    """The result is durable: the worker can forget it."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 164
    uuid: UUID


@message
@frozen(kw_only=True)
class Gone(Message):
    """The attempt is over without this worker: it was ended, or its job was given to another. It kills what runs."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 165
    uuid: UUID
    reason: str


@message
@frozen(kw_only=True)
class GiveUp(Message):
    """The worker has no more of the attempt: its job goes back to the queue at once, and that is nobody's fault."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 166
    uuid: UUID
    reason: str


@message
@frozen(kw_only=True)
class Alive(Message):
    """A sign of life. A worker says with it what has changed of what it tells of itself, such as its load.

    While it waits for a job it says with it why it takes none now: ``pressure``, which is empty when that is over.
    """

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 167
    max_size: ClassVar[int] = 128 * KIB
    facts: tuple[Fact, ...] = ()


@message
@frozen(kw_only=True)
class BuildFacts(Message):
    """How a job is run: ``version`` of the worker, ``sandbox``, ``limit.NAME`` for each limit in force, in bytes and seconds, and
    of a root tree ``root``, its SHA-256, and ``snapshot``, if they are known.

    It comes before the first line, and again when the worker has come back; what came last counts.
    """

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 168
    max_size: ClassVar[int] = 128 * KIB
    uuid: UUID
    facts: tuple[Fact, ...]

    def check(self) -> None:
        """Raise InvalidOptions, as of AskJob."""
        check_facts(self.facts)


@message
@frozen(kw_only=True)
class NoJob(Message):
    """There was no job for as long as the worker wanted to wait: it has none, and may ask again.

    Where the server ``is_drained``, it is told so before that time: another one has jobs.
    """

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 211
    is_drained: bool = False
