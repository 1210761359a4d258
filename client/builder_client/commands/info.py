"""``info``: what the server has."""

import click

from builder_client import clock, options, report
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
    JSON: {schedule: [{next, period, job, kind, platform | opam_package, script}],
           queues: [{platform, jobs: [{job, kind, platform | opam_package}]}],
           running: [{uuid, job, platform, started}], dropped_platforms: [name]}
          next is null for never; kind is "script" or "orb-build"; times are in UTC
    """
    printer = standard_output(color)
    reply = options.remote().info()
    if as_json:
        printer.json(report.info_json(reply), indent=2)
    else:
        report.print_info(printer, reply, now=clock.now())
