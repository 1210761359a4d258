"""What the server knows and what builds do, as tables and lines for people and as JSON for programs.

The keys of the JSON are stable. Times are ISO 8601 in UTC. Text that is not UTF-8 has U+FFFD in it, and its bytes
stand beside it under ``KEY_base64`` where they matter (console lines, scripts).

info, one object:
    schedule           [{next (null: never), period, job, kind, platform | opam_package, script}], next run first;
                       with all other options, as of show, where the server speaks our own protocol
    queues             [{platform, jobs: [{job, kind, platform | opam_package}]}], the next job first
    running            [{uuid, job, platform, started}], newest first; with elapsed_ms, expected_ms, worker,
                       holder and away_since (null: not known, no certificate, not away) where the server
                       speaks our own protocol
    dropped_platforms  [platform]
    uploads            [{receiver, known, pending, refused, failures, oldest, next_attempt, reason}], where the server
                       speaks our own protocol

observe, one object per line, told apart by ``type``:
    build   {type, uuid, job, platform, started}   which build it is, where the client had to find it
    line    {type, uuid, line, timestamp_ns}       nanoseconds since the start
    result  {type, uuid, result, text, timestamp_ns}

A result:
    {kind: "exited", code} | {kind: "signalled" | "stopped", signal, name} | {kind: "aborted", message}
    with the number and name of the signal on this system.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from builder.messages import InfoReply, Output
from builder.model import (
    NEVER,
    Aborted,
    ConsoleLine,
    Exited,
    Instant,
    Job,
    Period,
    Queue,
    Result,
    RunningBuild,
    ScheduleItem,
    ScriptJob,
    Signalled,
    Stopped,
    posix_signal,
    printable,
    signal_name,
)
from builder.planning import JobOptions, JobReference

from . import jobs, words
from .errors import Refused
from .fitting import Column
from .output import JsonObject, Printer, json_bytes, json_text, note

if TYPE_CHECKING:
    from builder.extension.watching import RunningState


def next_run(item: ScheduleItem) -> tuple[Instant, str]:
    """Return what the schedule is sorted by."""
    return item.next, item.job.name


def _newest_first(info: InfoReply) -> list[RunningBuild]:
    return sorted(info.running, key=lambda build: build.started, reverse=True)


# --- for people ----------------------------------------------------------------------------------------------------


_SCHEDULE = (
    Column("NEXT RUN", rigid=True, brief=words.brief_time),
    Column("", rigid=True),
    Column("WHEN"),
    Column("JOB"),
    Column("WHAT", spare=1),
)
_QUEUES = (Column("PLATFORM"), Column("#", rigid=True), Column("JOB"), Column("WHAT", spare=1))
_FOR = Column("FOR", rigid=True)
_EXPECTED, _PROGRESS = Column("EXPECTED", rigid=True), Column("PROGRESS", rigid=True, spare=1)
_JOB, _PLATFORM = Column("JOB"), Column("PLATFORM")
_UUID = Column("UUID", rigid=True, brief=words.brief_uuid)
_STARTED = Column("STARTED", rigid=True, spare=1, brief=words.brief_time)
_WORKER, _HOLDER = Column("WORKER", spare=2), Column("HOLDER", spare=3)
"""The columns of running builds."""

MAX_ROWS = 100
"""Most rows of a table that a person gets on a terminal."""

Plans = Mapping[str, JobOptions]
"""How jobs are run, by their names; a job that is not there has its period alone."""

Told = Mapping[UUID, "RunningState"]
"""What servers of our own protocol tell of running builds, by their uuids; one that has just begun need not be there."""


def _what(job: Job) -> str:
    if isinstance(job, ScriptJob):
        return f"script on {printable(job.platform)}"
    return f"orb build of {printable(job.opam_package)}"


def running_table(
    info: InfoReply, *, now: Instant, told: Told | None = None
) -> tuple[list[Column], list[tuple[str, ...]]]:
    """Return columns and rows of the running builds, the newest first, and of their workers.

    What is expected stands in place of the start, which "for" tells: both are too wide for most terminals.
    """
    builds = _newest_first(info)
    cells = {
        _FOR: [words.duration(now.ms - build.started.ms) for build in builds],
        **(_progress(builds, told, now) if told is not None else {}),
        _JOB: [printable(build.job.name) for build in builds],
        _PLATFORM: [printable(build.job.platform) for build in builds],
        _UUID: [str(build.uuid) for build in builds],
        **(_at_workers(builds, told, now) if told is not None else {}),
        **({_STARTED: [words.seconds(build.started) for build in builds]} if told is None else {}),
    }
    return [*cells], [*zip(*cells.values(), strict=True)]


def _at_workers(builds: Sequence[RunningBuild], told: Told, now: Instant) -> dict[Column, list[str]]:
    known = [told.get(build.uuid) for build in builds]
    holders = [printable(each.holder or "") if each else "" for each in known]
    named = {_WORKER: [_worker(each, now) if each else "" for each in known]}
    return named | {_HOLDER: holders} if any(holders) else named


def _worker(build: "RunningState", now: Instant) -> str:
    absent = "" if build.away is None else f", away for {words.duration(now.ms - build.away.ms)}"
    return f"{printable(build.worker)}{absent}"


def _progress(builds: Sequence[RunningBuild], told: Told, now: Instant) -> dict[Column, list[str]]:
    durations = [known.expected if (known := told.get(build.uuid)) else None for build in builds]
    bars = [words.bar(now.ms - build.started.ms, each) for build, each in zip(builds, durations, strict=True)]
    return {_EXPECTED: ["" if each is None else words.duration(each) for each in durations], _PROGRESS: bars}


def print_queues(printer: Printer, info: InfoReply, *, platform: str | None, as_json: bool) -> None:
    """Print the order of the queues, which is all that a server of the classic protocol tells."""
    found = [queue for queue in info.queues if platform in (None, queue.platform)]
    if platform is not None and not found:
        raise Refused(f"unknown platform {printable(platform)}")
    if as_json:
        queues = [
            {
                "platform": json_text(queue.platform),
                "queued": len(queue.jobs),
                "jobs": [{"job": json_text(job.name)} for job in queue.jobs],
            }
            for queue in found
        ]
        printer.json({"queues": queues}, indent=2)
    else:
        printer.table("Queues", _QUEUES, _queue_rows(found), empty="no platforms")


def print_schedule(
    printer: Printer, title: str, items: Iterable[ScheduleItem], *, now: Instant, plans: Plans | None
) -> None:
    """Print jobs: when each is run next, and by what."""
    rows = [
        (*_next(item, plan, now), jobs.when(plan), printable(item.job.name), _what(item.job))
        for item in items
        for plan in [(plans or {}).get(item.job.name, JobOptions(period=item.period))]
    ]
    printer.table(title, _SCHEDULE, rows, empty="no jobs", limit=_limit(printer))


def _limit(printer: Printer) -> int | None:
    """Return the most rows of a table: a person gets some, a program all."""
    return MAX_ROWS if printer.is_terminal else None


def _next(item: ScheduleItem, plan: JobOptions, now: Instant) -> tuple[str, str]:
    if item.next == NEVER:
        return "never", "paused" if plan.paused else ""
    return words.seconds(item.next), "paused" if plan.paused else words.until(item.next, now)


def print_info(
    printer: Printer,
    info: InfoReply,
    *,
    now: Instant,
    plans: Plans | None = None,
    told: Told | None = None,
) -> None:
    """Print schedule, queues, running builds and dropped platforms."""
    print_schedule(printer, "Schedule", sorted(info.schedule, key=next_run), now=now, plans=plans)
    limit = _limit(printer)
    printer.line("")
    queued = _queue_rows(info.queues)
    printer.table("Queues", _QUEUES, queued, empty="no platforms", limit=limit)
    printer.line("")
    columns, rows = running_table(info, now=now, told=told)
    printer.table("Running", columns, rows, empty="nothing", limit=limit)
    if info.dropped_platforms:
        printer.line("")
        printer.line(f"Dropped platforms: {', '.join(map(printable, info.dropped_platforms))}")
    if printer.is_terminal and max(len(info.schedule), len(queued), len(rows)) > MAX_ROWS:
        note("For all of it: builder-client info | less")


def _queue_rows(queues: Iterable[Queue]) -> list[tuple[str, ...]]:
    return [
        row
        for queue in sorted(queues, key=lambda queue: queue.platform)
        for row in (
            [
                (printable(queue.platform), str(position), printable(job.name), _what(job))
                for position, job in enumerate(queue.jobs, start=1)
            ]
            or [(printable(queue.platform), "", "(empty)", "")]
        )
    ]


def print_output(printer: Printer, output: Output, name: str = "") -> None:
    """Print a console line with the time since the build's start, after a name that has gone through ``printable``."""
    printer.foreign_line(name + _prefix(output), output.line)


def print_result(printer: Printer, output: Output, result: Result, name: str = "") -> None:
    """Print the line that ends an observation."""
    printer.line(name + _prefix(output) + words.result(result))


def _prefix(output: Output) -> str:
    return "" if output.timestamp is None else f"{words.since_start(output.timestamp)} "


# --- for programs --------------------------------------------------------------------------------------------------


def job_json(job: Job) -> JsonObject:
    """Return what names a job and tells its kind."""
    value: JsonObject = {"job": json_text(job.name)}
    if isinstance(job, ScriptJob):
        return value | {"kind": "script", "platform": json_text(job.platform)}
    return value | {"kind": "orb-build", "opam_package": json_text(job.opam_package)}


def options_json(plan: JobOptions, period: Period) -> JsonObject:
    """Return how a job is run; ``period`` is the one that classic peers are shown."""
    return {
        "period": period.value,
        "cron": plan.cron and plan.cron.rule,
        "time_zone": plan.cron and plan.cron.zone,
        "spread": plan.spread,
        "missed": plan.missed.value,
        "priority": plan.priority,
        "retries": plan.retries,
        "timeout_ms": plan.time_limit,
        "max_silent_ms": plan.max_silent,
        "after": [reference_json(each) for each in plan.after],
        "needs": [*map(str, plan.needs)],
        "paused": plan.paused,
    }


def reference_json(reference: JobReference) -> JsonObject:
    """Return a job that is waited for."""
    return {"job": json_text(reference.name), "platform": reference.platform and json_text(reference.platform)}


def next_json(moment: Instant) -> str | None:
    """Return when a job is run next."""
    return None if moment == NEVER else moment.isoformat()


def _schedule_json(item: ScheduleItem, plans: Plans | None) -> JsonObject:
    value: JsonObject = {"next": next_json(item.next), "period": item.period.value} | job_json(item.job)
    if plans is not None:
        value |= options_json(plans.get(item.job.name, JobOptions(period=item.period)), item.period)
    return value | json_bytes("script", item.job.script) if isinstance(item.job, ScriptJob) else value


def build_json(build: RunningBuild) -> JsonObject:
    """Return a running build."""
    return {
        "uuid": str(build.uuid),
        "job": json_text(build.job.name),
        "platform": json_text(build.job.platform),
        "started": build.started.isoformat(),
    }


def _running_json(build: RunningBuild, told: Told | None, now: Instant) -> JsonObject:
    if told is None:
        return build_json(build)
    known = told.get(build.uuid)
    return build_json(build) | {
        "elapsed_ms": max(0, now.ms - build.started.ms),
        "expected_ms": known and known.expected,
        "worker": known and json_text(known.worker),
        "holder": known and known.holder and json_text(known.holder),
        "away_since": known and known.away and known.away.isoformat(),
    }


def info_json(
    info: InfoReply,
    *,
    now: Instant,
    plans: Plans | None = None,
    told: Told | None = None,
) -> JsonObject:
    """Return an info reply."""
    return {
        "schedule": [_schedule_json(item, plans) for item in sorted(info.schedule, key=next_run)],
        "queues": [
            {"platform": json_text(queue.platform), "jobs": [job_json(job) for job in queue.jobs]}
            for queue in sorted(info.queues, key=lambda queue: queue.platform)
        ],
        "running": [_running_json(build, told, now) for build in _newest_first(info)],
        "dropped_platforms": [json_text(platform) for platform in info.dropped_platforms],
    }


def line_json(line: ConsoleLine) -> JsonObject:
    """Return a console line of a finished execution."""
    return json_bytes("line", line.line) | {"timestamp_ns": line.delta}


def output_json(output: Output) -> JsonObject:
    """Return a console line of an observed build."""
    return (
        {"type": "line", "uuid": str(output.uuid)}
        | json_bytes("line", output.line)
        | {"timestamp_ns": output.timestamp}
    )


def result_json(result: Result) -> JsonObject:
    """Return how a build ended."""
    match result:
        case Exited(code=code):
            return {"kind": "exited", "code": code}
        case Signalled(signal=number) | Stopped(signal=number):
            kind = "signalled" if isinstance(result, Signalled) else "stopped"
            posix = posix_signal(number)
            return {"kind": kind, "signal": posix, "name": signal_name(posix)}
        case Aborted(message=message):
            return {"kind": "aborted", "message": json_text(message)}


def end_json(uuid: UUID, output: Output, result: Result) -> JsonObject:
    """Return the end of an observed build."""
    return {
        "type": "result",
        "uuid": str(uuid),
        "result": result_json(result),
        "text": words.result(result),
        "timestamp_ns": output.timestamp,
    }
