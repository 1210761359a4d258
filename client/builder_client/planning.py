"""The options by which people plan jobs, and what a job of the schedule has, also where the server is an older one."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.errors import InvalidOptions
from builder.extension.schedule import JobShown, PlanJob, ShowJob
from builder.messages import Schedule, ScheduleOrbBuild
from builder.model import NEVER, Instant, Job, ScriptJob, printable
from builder.needs import Need, of_script
from builder.planning import MAX_PRIORITY, MAX_RETRIES, Cron, JobOptions, Missed

from . import clock, jobs, options, words
from .errors import Refused, TooOld
from .output import note, print_done, standard_output

if TYPE_CHECKING:
    from .remote import Remote

_F = TypeVar("_F", bound=Callable[..., object])

_CLASSIC_KEYS = {"period"}
"""What the classic protocol has."""

_OPTIONS = (
    click.option("--period", type=options.PERIODS, metavar="PERIOD", help="How often: hourly, daily, weekly or never (only when executed).  [default: daily; with --after never]"),
    click.option("--cron", metavar="RULE", help="When, by a cron rule such as '17 3 * * mon-fri', @daily, or 'H H(0-5) * * *'; H is fixed by the job's name."),
    click.option("--time-zone", metavar="ZONE", shell_complete=options.completes("time_zones"), help="Whose clocks the rule follows, such as Europe/Copenhagen.  [default: UTC]"),
    click.option("--spread/--no-spread", default=None, help="Run at a place in the period that the job's name fixes, so that not all start at once."),
    click.option("--missed", type=click.Choice([each.value for each in Missed]), help="What becomes of runs that were due while the server was down.  [default: run-once]"),
    click.option("--priority", type=click.IntRange(0, MAX_PRIORITY), help=f"{MAX_PRIORITY} goes first.  [default: {JobOptions().priority}]"),
    click.option("--retries", type=click.IntRange(0, MAX_RETRIES), metavar="N", help="Run again up to N times when it fails, a minute later, then four, ….  [default: 0]"),
    click.option("--timeout", metavar="DURATION", help="End it after so long, as 90s, 10m or 1h30m; the server's own limit holds too."),
    click.option("--max-silent", metavar="DURATION", help="End it when it says nothing for so long."),
    click.option("--after", multiple=True, metavar="JOB[@PLATFORM]", shell_complete=options.completes("jobs"), help="Run when that job has succeeded; several: when all have. What is behind the last @ is the platform. Without --period, --cron and --spread it runs at no other time."),
    click.option("--needs", multiple=True, metavar="NEED", help="Run only on a worker that has that: kvm, 'memory>=16G', 'cores>=4', sandbox=overlay, arch=x86_64, or a label of its operator. In quotes, for the sake of the shell; several: all of them."),
)  # fmt: skip
_REMOVALS = tuple(
    click.option(f"--no-{key}", f"no_{key.replace('-', '_')}", is_flag=True, help=f"Take the {key} away.")
    for key in ("cron", "timeout", "max-silent", "after", "needs")
)


def planning_options(command: _F) -> _F:
    """Add the options of a job; ``given`` finds them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def editing_options(command: _F) -> _F:
    """Add the options of a job, whose defaults are what it has, and those that take them away."""
    for option in reversed(_REMOVALS):
        command = option(command)
    planning_options(command)
    for parameter in command.__click_params__:  # type: ignore[attr-defined]  # click keeps them there
        parameter.help = parameter.help and parameter.help.partition("  [default: ")[0]
    return command


not_now_option = click.option(
    "--not-now", is_flag=True, help="Do not run it at once, as also none is that is --after others."
)


def given(found: dict[str, Any]) -> dict[str, jobs.Value | None]:
    """Return what was given of these options, by its keys. Raises UsageError."""
    values: dict[str, jobs.Value | None] = {}
    for name, value in found.items():
        key = name.removeprefix("no_").replace("_", "-")
        if value in (None, False, ()) and not (key == "spread" and value is False):
            continue
        if key in values or (name.startswith("no_") and found.get(name.removeprefix("no_"))):
            raise click.UsageError(f"--{key} and --no-{key} exclude each other.", click.get_current_context())
        values[key] = None if name.startswith("no_") else [*value] if isinstance(value, tuple) else value
    return values


def options_of(name: str, values: dict[str, jobs.Value | None], before: JobOptions | None = None) -> JobOptions:
    """Return the options of a job with what was given. Raises InvalidOptions, which names the option."""
    try:
        return jobs.options_with(values, before or JobOptions(), name)
    except InvalidOptions as error:
        first = str(error).partition(":")[0]
        raise InvalidOptions(f"--{error}" if first in values else str(error)) from error


def add(job: Job, found: dict[str, Any], *, not_now: bool, as_json: bool) -> None:
    """Add a job to the schedule, in the classic way where that has all that is given, and say so."""
    values = given(found)
    plan = options_of(job.name, values)
    remote = options.remote()
    if values.keys() <= _CLASSIC_KEYS and not not_now:
        remote.ask(
            Schedule(period=plan.runs_every, job=job)
            if isinstance(job, ScriptJob)
            else ScheduleOrbBuild(period=plan.runs_every, job=job)
        )
        print_done("scheduled", as_json=as_json, job=job.name, queued=True)
        return
    run_now = not not_now and not plan.after
    asked = [f"--{key}" for key in values] + ["--not-now"] * not_now
    remote.request(
        PlanJob(job=job, options=plan, run_now=run_now),
        what=f"{' and no '.join(asked)}: --period alone says when there",
    )
    note_unknown(remote, plan)
    print_done("scheduled", as_json=as_json, job=job.name, queued=run_now)
    if plan.cron is not None and not as_json:
        now = clock.now()
        following = at(plan.next_after(job.name, now, now), plan.cron, now)
        standard_output().line(f"{printable(job.name)} runs {'now, and then' if run_now else 'next'} {following}")


def note_unknown(remote: "Remote", plan: JobOptions) -> None:
    """Name the jobs that one waits for and that are not there, which may come or be mistyped."""
    for reference in plan.after:
        try:
            find(remote, reference.name, what="--after")
        except Refused:
            note_awaited(reference.name, [])


def note_awaited(name: str, waiting: Iterable[str]) -> None:
    """Say that a job is not there that is waited for; by ``waiting``, where a person may not know by which."""
    by = ", ".join(map(printable, waiting))
    note(
        f"There is no job {printable(name)} yet: it is waited for{by and f' by {by}'} until it is scheduled and succeeds"
    )


def at(moment: Instant, cron: Cron | None, now: Instant) -> str:
    """Return a time on the clocks of a rule's time zone, or of UTC."""
    if cron is None or cron.zone == "UTC":
        shown = f"{moment.to_datetime():%Y-%m-%d %H:%M:%S} UTC"
    else:
        from builder.cron import time_zone

        shown = f"{moment.to_datetime().astimezone(time_zone(cron.zone)):%Y-%m-%d %H:%M:%S %z} {printable(cron.zone)}"
    return f"{shown} ({words.until(moment, now)})"


def find(remote: "Remote", name: str, *, what: str) -> JobShown:
    """Return a job of the schedule. Raises Refused, and TooOld, as ``what`` calls what is missing."""
    (shown,) = remote.request(ShowJob(name=name), what=what)
    assert isinstance(shown, JobShown), "a server answers so"
    return shown


def find_anywhere(remote: "Remote", name: str) -> JobShown:
    """The same of an older server, whose jobs have a period alone."""
    try:
        return find(remote, name, what="ShowJob")
    except TooOld:
        info = remote.info()
    item = next((item for item in info.schedule if item.job.name == name), None)
    if item is None:
        raise Refused(f"unknown job {printable(name)}", name=name)
    return JobShown(
        job=item.job,
        options=JobOptions(period=item.period),
        revision=0,
        next_run=item.next,
        queued_on=tuple(queue.platform for queue in info.queues if any(job.name == name for job in queue.jobs)),
        awaited=(),
    )


def script_needs(job: Job) -> tuple[Need, ...]:
    """Return what the script of a job says that it needs."""
    return of_script(job.script).needs if isinstance(job, ScriptJob) else ()


def as_json(shown: JobShown) -> dict[str, Any]:
    """Return all of a job for JSON."""
    from . import report
    from .output import json_bytes, json_text

    script = json_bytes("script", shown.job.script) if isinstance(shown.job, ScriptJob) else {}
    return {
        **report.job_json(shown.job),
        **script,
        **report.options_json(shown.options, shown.options.classic_period(shown.job.name, clock.now())),
        "awaited": [report.reference_json(each) for each in shown.awaited],
        "script_needs": [*map(str, script_needs(shown.job))],
        "next": None if shown.next_run == NEVER else shown.next_run.isoformat(),
        "queued_on": [json_text(name) for name in shown.queued_on],
        "revision": shown.revision,
    }
