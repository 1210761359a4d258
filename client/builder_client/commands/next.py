"""``next``: when jobs will run, or a rule would have one run."""

import itertools
import re

import click

from builder.extension.schedule import MAX_RUNS, NextRuns, RunsShown
from builder.model import Instant, printable
from builder.planning import Cron, JobOptions, JobReference
from builder_client import clock, looking, options, planning, report
from builder_client.errors import TooOld
from builder_client.output import Printer, json_text, note, standard_output

_HASHED = re.compile(r"(?<![a-z@])H(?![a-z])", re.IGNORECASE)


@click.command("next")
@click.argument("name", metavar="NAME", required=False, shell_complete=options.completes("jobs"))
@click.option("--count", type=click.IntRange(1, MAX_RUNS), default=10, metavar="N", help="So many runs.  [default: 10]")
@click.option("--cron", metavar="RULE", help="Of this rule instead, without a server; NAME fixes what its H is.")
@click.option("--time-zone", metavar="ZONE", help="The rule's time zone.  [default: UTC]")
@options.json_option
@options.server_options
def command(name: str | None, count: int, cron: str | None, time_zone: str | None, *, as_json: bool) -> None:
    """Show when the job NAME will run, or all jobs.

    They are less where it has no more. A job that is paused does not run then, which is said. A job
    that is after others runs after them, too. Without NAME the next run of each job is shown, the first N of them.

    \b
    JSON: {next: [time]}, in UTC
          without NAME {jobs: [{job, next, paused}]}; next is null for never, paused false of a server of the classic protocol

    \b
    Examples:
      builder-client next
      builder-client next hello --count 3
      builder-client next --cron '30 2 * * *' --time-zone Europe/Copenhagen
    """
    printer = standard_output()
    after: tuple[JobReference, ...] = ()
    zone = Cron(rule=cron or "", zone=time_zone or "UTC")
    if cron is not None and name is None and _HASHED.search(cron):
        raise click.UsageError("Give NAME too: it fixes what H is.", click.get_current_context())
    if time_zone is not None and cron is None:
        raise click.UsageError("--time-zone is for --cron RULE: a job has its own.", click.get_current_context())
    if name is None and cron is None:
        _show_all(printer, count, as_json=as_json)
        return
    paused = False
    if cron is not None:
        runs = _of_rule(zone, name or "", count)
    else:
        assert name is not None, "else all were shown"
        plan, runs = _of_job(name, count)
        zone, paused, after = plan.cron or zone, plan.paused, plan.after
    if as_json:
        printer.json({"next": [run.isoformat() for run in runs]})
        return
    if paused:
        note(f"{printable(name or '')} is paused: it does not run until it is resumed")
    for run in runs:
        printer.line(planning.at(run, zone, clock.now()))
    if not runs:
        printer.line(f"only after {', '.join(printable(str(each)) for each in after)}" if after else "never")


def _of_rule(cron: Cron, name: str, count: int) -> list[Instant]:
    from builder.cron import Rule

    rule = Rule(text=cron.rule, zone=cron.zone, name=name)
    return [*itertools.islice(rule.runs(clock.now()), count)]


def _show_all(printer: Printer, count: int, *, as_json: bool) -> None:
    remote = options.remote()
    items = sorted(remote.info().schedule, key=report.next_run)[:count]
    plans = looking.plans(remote) if items else None
    if not as_json:
        report.print_schedule(printer, "Next runs", items, now=clock.now(), plans=plans)
        return
    paused = {name for name, plan in (plans or {}).items() if plan.paused}
    found = [
        {"job": json_text(item.job.name), "next": report.next_json(item.next), "paused": item.job.name in paused}
        for item in items
    ]
    printer.json({"jobs": found})


def _of_job(name: str, count: int) -> tuple[JobOptions, list[Instant]]:
    remote = options.remote()
    found = planning.find_anywhere(remote, name)
    try:
        (reply,) = remote.request(NextRuns(name=name, count=count), what="NextRuns")
        assert isinstance(reply, RunsShown), "a server answers so"
        runs = [*reply.moments]
    except TooOld:
        runs = [*itertools.islice(found.options.runs(name, found.next_run, clock.now()), count)]
    return found.options, runs
