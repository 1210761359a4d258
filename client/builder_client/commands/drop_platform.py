"""``drop-platform``: remove a platform, and tell what becomes of its workers, which do not know."""

import click

from builder.messages import DropPlatform
from builder.model import printable
from builder_client import options
from builder_client.output import print_done, standard_output


@click.command("drop-platform")
@click.argument("platform", metavar="PLATFORM", shell_complete=options.completes("platforms"))
@options.yes_option
@options.json_option
@options.server_options
def command(platform: str, *, yes: bool, as_json: bool) -> None:
    """Remove PLATFORM with its queue and its script jobs.

    Its workers are given nothing until it is undropped. On a terminal it asks before.

    \b
    JSON: {done: "dropped", platform}

    \b
    Examples:
      builder-client drop-platform debian-11
      builder-client drop-platform debian-11 --yes
    """
    printer = standard_output()
    remote = options.remote()
    options.confirm(
        f"Remove the platform {printable(platform)} with its queue and its script jobs from {remote}?", yes=yes
    )
    remote.ask(DropPlatform(platform=platform))
    print_done("dropped", as_json=as_json, platform=platform)
    if not as_json:
        printer.line(
            f"Platform {printable(platform)} dropped. Its workers may stay: they get no new job until it is undropped."
        )
