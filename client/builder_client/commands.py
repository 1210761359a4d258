"""What the subcommands do once their arguments are understood. Nothing here knows click."""

import datetime as dt
from typing import BinaryIO
from uuid import UUID

from attrs import frozen

from builder.errors import BuilderError
from builder.messages import (
    MAX_SCRIPT,
    MIB,
    DropPlatform,
    Execute,
    Output,
    Reschedule,
    Schedule,
    ScheduleOrbBuild,
    UndropPlatform,
    Unschedule,
)
from builder.model import Instant, OrbBuildJob, Period, Result, RunningBuild, ScriptJob, printable

from . import builds, report, words
from .observation import Ending, split_result
from .output import Printer, note
from .remote import Remote


class ScriptTooLarge(BuilderError):
    """A script of more bytes than a server takes."""

    exit_code = 2


class ScriptEmpty(BuilderError):
    """A script of no bytes, such as of a program that failed to make one: a job of it would always succeed."""

    exit_code = 2


@frozen(kw_only=True)
class Observing:
    """How an observation is shown, and whether its exit status is the job's."""

    printer: Printer
    as_json: bool
    exit_status: bool


def _now() -> Instant:
    return Instant.from_datetime(dt.datetime.now(dt.UTC))


def schedule(remote: Remote, *, name: str, platform: str, script: BinaryIO, period: Period) -> None:
    """Add a script job."""
    content = script.read(MAX_SCRIPT + 1)
    if len(content) > MAX_SCRIPT:
        raise ScriptTooLarge(f"the script has more than {MAX_SCRIPT // MIB} MiB; let it fetch what it needs")
    if not content:
        raise ScriptEmpty("the script is empty")
    remote.ask(Schedule(period=period, job=ScriptJob(name=name, platform=platform, script=content)))


def orb_build(remote: Remote, *, name: str, opam_package: str, period: Period) -> None:
    """Add an opam package."""
    remote.ask(ScheduleOrbBuild(period=period, job=OrbBuildJob(name=name, opam_package=opam_package)))


def unschedule(remote: Remote, *, name: str) -> None:
    """Remove a job."""
    remote.ask(Unschedule(name=name))


def reschedule(remote: Remote, *, name: str, next_run: Instant, period: Period | None) -> None:
    """Set the next run of a job, and its period if there is one."""
    remote.ask(Reschedule(name=name, next=next_run, period=period))


def execute(remote: Remote, *, name: str, platform: str | None) -> None:
    """Put a job at the front."""
    remote.ask(Execute(name=name, platform=platform))


def drop_platform(remote: Remote, printer: Printer, *, platform: str) -> None:
    """Ban a platform, and tell what becomes of its workers, which do not know."""
    remote.ask(DropPlatform(platform=platform))
    printer.line(
        f"Platform {printable(platform)} dropped. Its workers may stay: they get no new job until it is undropped."
    )


def undrop_platform(remote: Remote, *, platform: str) -> None:
    """Lift the ban of a platform."""
    remote.ask(UndropPlatform(platform=platform))


def info(remote: Remote, printer: Printer, *, as_json: bool) -> None:
    """Show what the server has."""
    reply = remote.info()
    if as_json:
        printer.json(report.info_json(reply), indent=2)
    else:
        report.print_info(printer, reply, now=_now())


def observe(remote: Remote, how: Observing, *, digits: str) -> int:
    """Observe the build whose uuid begins with ``digits``, and return the exit status.

    A whole uuid is left to the server, which may know builds that are not running.
    """
    uuid = words.whole_uuid(digits)
    if uuid is not None:
        return _follow(remote, how, uuid)
    return _follow_named(remote, how, builds.find_build(remote.info(), digits))


def observe_latest(remote: Remote, how: Observing, *, job: str | None, platform: str | None) -> int:
    """Observe the running build that started last, and return the exit status."""
    return _follow_named(remote, how, builds.newest_build(remote.info(), job=job, platform=platform))


def follow_next(remote: Remote, how: Observing, *, job: str) -> int:
    """Wait for the next build of a job, observe it, and return the exit status."""
    first = remote.info()
    builds.check_job(first, job)
    note(f"Waiting for the next build of {printable(job)}")
    return _follow_named(remote, how, builds.wait_for_next(remote.info, first, job=job, now=_now))


def _follow_named(remote: Remote, how: Observing, build: RunningBuild) -> int:
    if how.as_json:
        how.printer.json({"type": "build"} | report.build_json(build))
    else:
        note(f"Observing {builds.name_build(build)}")
    return _follow(remote, how, build.uuid)


def _follow(remote: Remote, how: Observing, uuid: UUID) -> int:
    printer = how.printer
    result: Result | None = None
    for part in split_result(remote.observe(uuid, on_wait=printer.flush)):
        match part:
            case Output() if how.as_json:
                printer.json(report.output_json(part))
            case Output():
                report.print_output(printer, part)
            case Ending():
                result = part.result
                if how.as_json:
                    printer.json(report.end_json(uuid, part.output, result))
                else:
                    report.print_result(printer, part.output, result)
    return words.exit_status(result) if how.exit_status else 0
