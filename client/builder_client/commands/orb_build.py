"""``orb-build``: add an opam package."""

import click

from builder.messages import ScheduleOrbBuild
from builder.model import OrbBuildJob, Period
from builder_client import options


@click.command("orb-build")
@options.new_name_argument
@click.argument("opam_package", metavar="OPAM")
@options.period_option
@options.server_options
def command(name: str, opam_package: str, period: Period) -> None:
    """Build the opam package OPAM on every platform periodically.

    On each platform it is a script that the server makes of that platform's template.

    \b
    Example:
      builder-client orb-build retreat retreat --period weekly
    """
    job = OrbBuildJob(name=name, opam_package=opam_package)
    options.remote().ask(ScheduleOrbBuild(period=period, job=job))
