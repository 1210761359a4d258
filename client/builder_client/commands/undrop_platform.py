"""``undrop-platform``: lift the ban of a platform."""

import click

from builder.messages import UndropPlatform
from builder_client import options


@click.command("undrop-platform")
@click.argument("platform", metavar="PLATFORM", shell_complete=options.completes("dropped_platforms"))
@options.server_options
def command(platform: str) -> None:
    """Let workers of a dropped PLATFORM have jobs again.

    \b
    Example:
      builder-client undrop-platform debian-11
    """
    options.remote().ask(UndropPlatform(platform=platform))
