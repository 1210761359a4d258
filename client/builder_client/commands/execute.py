"""``execute``: put a job at the front."""

import click

from builder.messages import Execute
from builder_client import options


@click.command("execute")
@options.job_argument
@click.option(
    "--platform",
    metavar="PLATFORM",
    shell_complete=options.completes("platforms"),
    help="Only there.  [default: everywhere]",
)
@options.server_options
def command(name: str, platform: str | None) -> None:
    """Run the job NAME as soon as a worker is free.

    It is put at the front of its queue, or of those of all platforms.

    \b
    Examples:
      builder-client execute hello
      builder-client execute retreat --platform debian-12
    """
    options.remote().ask(Execute(name=name, platform=platform))
