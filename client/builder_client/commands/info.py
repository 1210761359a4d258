"""``info``: what the server has."""

import click

from builder_client import clock, options, report
from builder_client.looking import expected, plans
from builder_client.output import standard_output


@click.command("info")
@options.json_option
@options.color_option
@options.server_options
def command(*, as_json: bool, color: str) -> None:
    """Show schedule, queues, running builds, dropped platforms.

    \b
    Examples:
      builder-client info
      builder-client info --json | jq -r '.running[].uuid'

    \b
    JSON: {schedule: [{next, period, job, kind, platform | opam_package, script, cron, time_zone, spread, missed, priority,
                       retries, timeout_ms, max_silent_ms, after, paused}],
           queues: [{platform, jobs: [{job, kind, platform | opam_package}]}],
           running: [{uuid, job, platform, started, elapsed_ms, expected_ms}], dropped_platforms: [name]}
          what is from cron to paused, as in show, and elapsed_ms and expected_ms (null: not known) come from servers of
          our own protocol alone; next is null for never; kind is "script" or "orb-build"; times are in UTC
    """
    printer = standard_output(color)
    remote = options.remote()
    reply = remote.info()
    found = plans(remote) if reply.schedule else None
    durations = expected(remote) if reply.running else None
    if as_json:
        printer.json(report.info_json(reply, now=clock.now(), plans=found, expected=durations), indent=2)
    else:
        report.print_info(printer, reply, now=clock.now(), plans=found, expected=durations)
