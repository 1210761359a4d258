"""What the store keeps of a build, and what it answers to those that run them."""

import enum
import hashlib
import hmac
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self
from uuid import UUID

from attrs import evolve, frozen

from builder import codec, needs
from builder.extension.uploads import UploadState
from builder.extension.working import Fact
from builder.model import Instant, Job, OrbBuildJob, Period, Result, ScheduleItem, ScriptJob
from builder.needs import PRESSURE, Capabilities
from builder.planning import Cron, JobOptions, JobReference, Missed


@frozen(kw_only=True)
class Holder:
    """The worker that has a build: its address, and if it may come back, its name and the SHA-256 of the attempt's secret."""

    address: str
    name: str | None = None
    secret_sha256: bytes | None = None
    facts: tuple[Fact, ...] = ()
    """What it tells of itself."""

    @cached_property
    def known_as(self) -> str:
        """What it is called where it is drained."""
        return known_as(self.address, self.name)

    @cached_property
    def pressure(self) -> str:
        """Why it takes no job now, if it does not."""
        return next((fact.value for fact in self.facts if fact.name == PRESSURE), "")

    def under(self, pressure: str) -> "Holder":
        """Return it with another reason to take no job, or with none."""
        others = tuple(fact for fact in self.facts if fact.name != PRESSURE)
        return evolve(self, facts=(*others, Fact(name=PRESSURE, value=pressure)) if pressure else others)

    @cached_property
    def able(self) -> Capabilities:
        """What a job can need, as far as it has that."""
        return Capabilities.of((fact.name, fact.value) for fact in self.facts)


def split_peer(text: str) -> tuple[str | None, str]:
    """Return the holder of a worker's certificate, if it has one, and its address, out of what logs call it."""
    holder, has_one, address = text.rpartition(" (")
    return (holder, address.removesuffix(")")) if has_one else (None, text)


def known_as(peer: str | None, name: str | None) -> str:
    """Return what a worker is called where it is drained: its name, or else its certificate's holder, or its host.

    Its port is another one each time.
    """
    holder, address = split_peer(peer or "")
    return name or holder or address.rpartition(":")[0].strip("[]") or address


def is_secret(secret: bytes, sha256: bytes | None) -> bool:
    """Return whether that is the secret of an attempt; of one without a secret it is none."""
    return sha256 is not None and hmac.compare_digest(hashlib.sha256(secret).digest(), sha256)


@frozen(kw_only=True)
class LeftBuild:
    """A build that ran when its server ended. The limits are in milliseconds; ``cancelled_by`` is who has ended it."""

    uuid: UUID
    name: str
    platform: str
    started: Instant
    holder: Holder
    time_limit: int | None
    max_silent: int | None
    cancelled_by: str | None


@frozen(kw_only=True)
class Build:
    """An attempt at a job, as the store keeps it. ``losses`` are those before this attempt.

    ``time_limit`` and ``max_silent`` are those of the job when it was taken, in milliseconds. ``secret_sha256`` is None where
    its worker can't come back, and where the result is not the worker's.
    """

    uuid: UUID
    job: ScriptJob
    started: Instant
    losses: int
    state: str = "running"
    finished: Instant | None = None
    result: Result | None = None
    ended_by: str | None = None
    time_limit: int | None = None
    max_silent: int | None = None
    secret_sha256: bytes | None = None


@frozen(kw_only=True)
class BuildHead:
    """What is known of an attempt besides its script, which may have 4 MiB. ``owner`` is the server that has or had it."""

    uuid: UUID
    name: str
    platform: str
    started: Instant
    state: str
    finished: Instant | None
    result: Result | None
    ended_by: str | None
    secret_sha256: bytes | None
    owner: str | None = None


@frozen(kw_only=True)
class StoredArtifact:
    """What is kept of an artifact; ``sha256`` are the 32 bytes of its hash."""

    path: str
    size: int
    sha256: bytes


@frozen(kw_only=True)
class Signable:
    """What is known of a build that is signed. The limits are its job's, in milliseconds; ``worker`` is an address.

    ``facts`` is what the worker has said of it.
    """

    uuid: UUID
    name: str
    platform: str
    script: bytes
    started: Instant
    finished: Instant
    result: Result
    ended_by: str | None
    template: str | None
    opam_package: str | None
    time_limit: int | None
    max_silent: int | None
    worker: str | None
    worker_name: str | None
    facts: Mapping[str, str]


@frozen(kw_only=True)
class OldBuild:
    """A build that need not be kept: the name of its job, and the bytes of its files."""

    uuid: UUID
    name: str
    started: Instant
    size: int


@frozen(kw_only=True)
class PendingUpload:
    """A build that is to be posted to a receiver: how often that failed, and how often the receiver has failed in a row."""

    uuid: UUID
    name: str
    platform: str
    attempts: int
    failures: int


@frozen(kw_only=True)
class Attempted:
    """What came of an attempt to upload: the ``state`` of the upload, and the ``reason`` if it did not succeed.

    ``next_attempt`` is the earliest one of this upload, ``resume`` the earliest of any to this receiver, and ``failures``
    how often that has failed in a row: 0 if it does what it is to do, None if nothing is said of it.
    """

    state: UploadState
    at: Instant
    reason: str | None = None
    next_attempt: Instant | None = None
    failures: int | None = None
    resume: Instant | None = None


@frozen(kw_only=True)
class Expanded:
    """The script that was made of an orb-build job, and the SHA-256 of the template that it was made from, in hexadecimal."""

    job: ScriptJob
    template: str


@frozen(kw_only=True)
class Taken:
    """What a worker that asks gets: a build, or none; ``blocked`` names a job that lacks only a template.

    ``is_halted``: it gets none while it is drained, or its platform or the server.
    """

    build: Build | None = None
    blocked: str | None = None
    is_halted: bool = False


@frozen(kw_only=True)
class Due:
    """After what was due is queued: the earliest next run of all jobs, and the jobs whose run was put back."""

    next_run: Instant | None
    put_back: tuple[str, ...] = ()


class AfterLoss(enum.Enum):
    """What became of a running build that lost its worker."""

    PUT_BACK = "its job is queued again, unless it left the schedule"
    TOO_MANY = "it still runs: the caller records it as failed"
    NOT_RUNNING = "it had ended before"


@frozen(kw_only=True)
class PlannedJob:
    """A job of the schedule with all that is kept of it. ``awaited`` are those whose success it still waits for."""

    job: Job
    options: JobOptions
    revision: int
    next_run: Instant
    queued_on: tuple[str, ...]
    awaited: tuple[JobReference, ...]


@frozen(kw_only=True)
class Timing:
    """What follows from the options of a job at a time: its next run, and the period that classic peers are shown.

    For a cron rule that takes a millisecond or two: it is found before a step begins, in which nobody else can write.
    """

    next_run: Instant
    period: Period

    @classmethod
    def of(cls, options: JobOptions, name: str, now: Instant) -> Self:
        """Return it for a job of that name."""
        return cls(next_run=options.next_after(name, now, now), period=options.classic_period(name, now))


def to_rule(row: Any) -> JobOptions:
    """Return the options of a row that its next run follows from."""
    return JobOptions(period=Period(row.period), cron=_cron(row), spread=row.spread)


def _cron(row: Any) -> Cron | None:
    return None if row.cron is None else Cron(rule=row.cron, zone=row.zone)


def to_options(row: Any, after: tuple[JobReference, ...] = ()) -> JobOptions:
    """Return the options of a row of jobs; those to wait for are in a table of their own."""
    return JobOptions(
        period=None if row.own_period is None else Period(row.own_period),
        cron=_cron(row),
        spread=row.spread,
        missed=Missed(row.missed),
        priority=row.priority,
        retries=row.retries,
        time_limit=row.time_limit,
        max_silent=row.max_silent,
        paused=row.paused,
        after=after,
        needs=needs.of_text(row.needs),
    )


def options_values(options: JobOptions, timing: Timing) -> dict[str, object]:
    """Return the columns that keep the options of a job."""
    return {
        "period": timing.period.value,
        "own_period": options.period and options.period.value,
        "cron": options.cron and options.cron.rule,
        "zone": options.cron and options.cron.zone,
        "spread": options.spread,
        "missed": options.missed.value,
        "priority": options.priority,
        "retries": options.retries,
        "time_limit": options.time_limit,
        "max_silent": options.max_silent,
        "paused": options.paused,
        "needs": needs.text_of(options.needs),
    }


def to_job(row: Any) -> Job:
    """Return the job of a row."""
    if row.opam_package is not None:
        return OrbBuildJob(name=row.name, opam_package=row.opam_package)
    return ScriptJob(name=row.name, platform=row.platform, script=row.script)


def to_schedule_item(row: Any) -> ScheduleItem:
    """Return the schedule item of a row of jobs."""
    return ScheduleItem(next=Instant(row.next_run), period=Period(row.period), job=to_job(row))


def to_build(row: Any) -> Build:
    """Return the build of a row."""
    head = to_head(row)
    return Build(
        uuid=head.uuid,
        job=ScriptJob(name=head.name, platform=head.platform, script=row.script),
        started=head.started,
        losses=row.losses,
        state=head.state,
        finished=head.finished,
        result=head.result,
        ended_by=head.ended_by,
        time_limit=row.time_limit,
        max_silent=row.max_silent,
        secret_sha256=head.secret_sha256,
    )


def to_head(row: Any) -> BuildHead:
    """Return what a row has of a build besides its script."""
    return BuildHead(
        uuid=UUID(row.uuid),
        name=row.name,
        platform=row.platform,
        started=Instant(row.started),
        state=row.state,
        finished=None if row.finished is None else Instant(row.finished),
        result=None if row.result is None else codec.decode_result(row.result),
        ended_by=row.ended_by,
        secret_sha256=row.secret_sha256,
        owner=row.owner,
    )
