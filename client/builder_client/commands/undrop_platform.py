"""``undrop-platform``: lift the ban of a platform."""

import click

from builder.messages import UndropPlatform
from builder_client import options
from builder_client.output import print_done


@click.command("undrop-platform")
@click.argument("platform", metavar="PLATFORM", shell_complete=options.completes("dropped_platforms"))
@options.json_option
@options.server_options
def command(platform: str, *, as_json: bool) -> None:
    """Let workers of a dropped PLATFORM have jobs again.

    \b
    JSON: {done: "undropped", platform}

    \b
    Example:
      builder-client undrop-platform debian-11
    """
    options.remote().ask(UndropPlatform(platform=platform))
    print_done("undropped", as_json=as_json, platform=platform)
