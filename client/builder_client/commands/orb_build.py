"""``orb-build``: add an opam package."""

import click

from builder.model import OrbBuildJob
from builder_client import options, planning


@click.command("orb-build")
@options.new_name_argument
@click.argument("opam_package", metavar="OPAM")
@planning.planning_options
@planning.not_now_option
@options.json_option
@options.server_options
def command(name: str, opam_package: str, *, not_now: bool, as_json: bool, **found: object) -> None:
    """Build the opam package OPAM on every platform periodically.

    On each platform it is a script that the server makes of that platform's template.

    \b
    JSON: {done: "scheduled", job, queued}; queued: it runs at once

    \b
    Examples:
      builder-client orb-build retreat retreat --period weekly
      builder-client orb-build retreat retreat --cron 'H H(0-5) * * *' --retries 2
      builder-client orb-build app app --after retreat
    """
    planning.add(OrbBuildJob(name=name, opam_package=opam_package), found, not_now=not_now, as_json=as_json)
