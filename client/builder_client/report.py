"""What the server knows and what builds do, as tables and lines for people and as JSON for programs.

The keys of the JSON are stable. Times are ISO 8601 in UTC. Text that is not UTF-8 has U+FFFD in it, and its bytes
stand beside it under ``KEY_base64`` where they matter (console lines, scripts).

info, one object:
    schedule           [{next (null: never), period, job, kind, platform | opam_package, script}], next run first
    queues             [{platform, jobs: [{job, kind, platform | opam_package}]}], the next job first
    running            [{uuid, job, platform, started}], newest first
    dropped_platforms  [platform]

observe, one object per line, told apart by ``type``:
    build   {type, uuid, job, platform, started}   which build it is, where the client had to find it
    line    {type, uuid, line, timestamp_ns}       nanoseconds since the start
    result  {type, uuid, result, text, timestamp_ns}

A result:
    {kind: "exited", code} | {kind: "signalled" | "stopped", signal, name} | {kind: "aborted", message}
    with the number and name of the signal on this system.
"""

from uuid import UUID

from builder.messages import InfoReply, Output
from builder.model import (
    NEVER,
    Aborted,
    ConsoleLine,
    Exited,
    Instant,
    Job,
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

from . import words
from .output import Column, JsonObject, Printer, json_bytes, json_text


def next_run(item: ScheduleItem) -> tuple[Instant, str]:
    """Return what the schedule is sorted by."""
    return item.next, item.job.name


def _newest_first(info: InfoReply) -> list[RunningBuild]:
    return sorted(info.running, key=lambda build: build.started, reverse=True)


# --- for people ----------------------------------------------------------------------------------------------------


_SCHEDULE = (
    Column("NEXT RUN", rigid=True),
    Column("", rigid=True),
    Column("PERIOD", rigid=True),
    Column("JOB"),
    Column("WHAT"),
)
_QUEUES = (Column("PLATFORM"), Column("#", rigid=True), Column("JOB"), Column("WHAT"))
RUNNING = (
    Column("FOR", rigid=True),
    Column("JOB"),
    Column("PLATFORM"),
    Column("UUID", rigid=True),  # it is there to be copied
    Column("STARTED", rigid=True, spare=True),
)
"""The table of running builds."""


def seconds(moment: Instant) -> str:
    """Return a time without its fraction of a second."""
    return Instant(moment.ms // 1000 * 1000).isoformat()


def _what(job: Job) -> str:
    if isinstance(job, ScriptJob):
        return f"script on {printable(job.platform)}"
    return f"orb build of {printable(job.opam_package)}"


def running_rows(info: InfoReply, *, now: Instant) -> list[tuple[str, ...]]:
    """Return the rows of the table ``RUNNING``, the newest build first."""
    return [
        (
            words.duration(now.ms - build.started.ms),
            printable(build.job.name),
            printable(build.job.platform),
            str(build.uuid),
            seconds(build.started),
        )
        for build in _newest_first(info)
    ]


def print_info(printer: Printer, info: InfoReply, *, now: Instant) -> None:
    """Print schedule, queues, running builds and dropped platforms."""
    schedule = [
        (
            "never" if item.next == NEVER else seconds(item.next),
            "" if item.next == NEVER else words.until(item.next, now),
            item.period.value,
            printable(item.job.name),
            _what(item.job),
        )
        for item in sorted(info.schedule, key=next_run)
    ]
    printer.table("Schedule", _SCHEDULE, schedule, empty="no jobs")
    printer.line("")
    queues = [
        row
        for queue in sorted(info.queues, key=lambda queue: queue.platform)
        for row in (
            [
                (printable(queue.platform), str(position), printable(job.name), _what(job))
                for position, job in enumerate(queue.jobs, start=1)
            ]
            or [(printable(queue.platform), "", "(empty)", "")]
        )
    ]
    printer.table("Queues", _QUEUES, queues, empty="no platforms")
    printer.line("")
    printer.table("Running", RUNNING, running_rows(info, now=now), empty="nothing")
    if info.dropped_platforms:
        printer.line("")
        printer.line(f"Dropped platforms: {', '.join(map(printable, info.dropped_platforms))}")


def print_output(printer: Printer, output: Output) -> None:
    """Print a console line with the time since the build's start."""
    printer.foreign_line(_prefix(output), output.line)


def print_result(printer: Printer, output: Output, result: Result) -> None:
    """Print the line that ends an observation."""
    printer.line(_prefix(output) + words.result(result))


def _prefix(output: Output) -> str:
    return "" if output.timestamp is None else f"{words.since_start(output.timestamp)} "


# --- for programs --------------------------------------------------------------------------------------------------


def job_json(job: Job) -> JsonObject:
    """Return what names a job and tells its kind."""
    value: JsonObject = {"job": json_text(job.name)}
    if isinstance(job, ScriptJob):
        return value | {"kind": "script", "platform": json_text(job.platform)}
    return value | {"kind": "orb-build", "opam_package": json_text(job.opam_package)}


def _schedule_json(item: ScheduleItem) -> JsonObject:
    value: JsonObject = {
        "next": None if item.next == NEVER else item.next.isoformat(),
        "period": item.period.value,
    } | job_json(item.job)
    return value | json_bytes("script", item.job.script) if isinstance(item.job, ScriptJob) else value


def build_json(build: RunningBuild) -> JsonObject:
    """Return a running build."""
    return {
        "uuid": str(build.uuid),
        "job": json_text(build.job.name),
        "platform": json_text(build.job.platform),
        "started": build.started.isoformat(),
    }


def info_json(info: InfoReply) -> JsonObject:
    """Return an info reply."""
    return {
        "schedule": [_schedule_json(item) for item in sorted(info.schedule, key=next_run)],
        "queues": [
            {"platform": json_text(queue.platform), "jobs": [job_json(job) for job in queue.jobs]}
            for queue in sorted(info.queues, key=lambda queue: queue.platform)
        ],
        "running": [build_json(build) for build in _newest_first(info)],
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
