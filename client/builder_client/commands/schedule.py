"""``schedule``: add a script job."""

from typing import BinaryIO

import click

from builder.model import ScriptJob
from builder_client import options, planning
from builder_client.scripts import read_script


@click.command("schedule")
@options.new_name_argument
@click.argument(
    "platform",
    metavar="PLATFORM",
    callback=options.by(options.name("platform name")),
    shell_complete=options.completes("platforms"),
)
@click.argument("script", metavar="FILE", type=click.File("rb"))
@planning.planning_options
@planning.not_now_option
@options.json_option
@options.server_options
def command(name: str, platform: str, script: BinaryIO, *, not_now: bool, as_json: bool, **found: object) -> None:
    """Run the script FILE on PLATFORM periodically, first now.

    FILE may be - for standard input. The script is run by its #! line, or by /bin/sh.
    'next' shows what a rule means.

    \b
    JSON: {done: "scheduled", job, queued}; queued: it runs at once

    \b
    Examples:
      builder-client schedule hello debian-12 hello.sh
      builder-client schedule hello debian-12 hello.sh --cron '17 3 * * mon-fri' --time-zone Europe/Copenhagen
      builder-client schedule app debian-12 app.sh --after lib@debian-12 --after tool
      make-script | builder-client schedule hello debian-12 - --period weekly --not-now
    """
    planning.add(
        ScriptJob(name=name, platform=platform, script=read_script(script)), found, not_now=not_now, as_json=as_json
    )
