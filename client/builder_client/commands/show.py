"""``show``: all of a job."""

import click

from builder.model import NEVER, ScriptJob, printable
from builder_client import clock, jobs, options, planning
from builder_client.output import standard_output


@click.command("show")
@options.job_argument
@options.json_option
@options.server_options
def command(name: str, *, as_json: bool) -> None:
    """Show all that the job NAME has.

    Of a server that speaks only the classic protocol it shows what that has.

    \b
    JSON: {job, kind, platform + script | opam_package, period, cron, time_zone, spread, missed, priority, retries,
           timeout_ms, max_silent_ms, after: [{job, platform}], awaited: as after, needs: [NEED], script_needs: as
           needs, paused, next, queued_on: [platform], revision}
          null is what it does not have; with a rule, period is the nearest one; awaited are those of after that have
          not succeeded since it ran last, of an orb build with the platform where; script_needs is what the script says itself; script_base64 is there where the
          script is not UTF-8

    \b
    Examples:
      builder-client show hello
      builder-client show hello --json | jq -r .script
    """
    printer = standard_output()
    found = planning.find_anywhere(options.remote(), name)
    if as_json:
        printer.json(planning.as_json(found), indent=2)
        return
    now = clock.now()
    plan = found.options
    rows = {
        "job": printable(found.job.name),
        **{key: jobs.in_words(value) for key, value in jobs.said(found.job, plan).items()},
        "next run": "never" if found.next_run == NEVER else planning.at(found.next_run, plan.cron, now),
        "queued on": ", ".join(map(printable, found.queued_on)) or "none",
    }
    if in_script := planning.script_needs(found.job):
        rows["script needs"] = jobs.in_words([*map(str, in_script)])
    if plan.after:
        rows["waits for"] = ", ".join(printable(str(each)) for each in found.awaited) or "none"
    width = max(map(len, rows))
    for key, value in rows.items():
        printer.line(f"{key.ljust(width)}  {value}")
    if isinstance(found.job, ScriptJob):
        printer.line("script:")
        for line in found.job.script.removesuffix(b"\n").split(b"\n"):
            printer.foreign_line("  ", line)
