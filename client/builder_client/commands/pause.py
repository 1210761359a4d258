"""``pause``: see the other one of ``pause`` and ``resume``."""

import click

from builder.model import printable
from builder_client import changes, options
from builder_client.output import standard_output


@click.command("pause")
@options.job_argument
@options.server_options
def command(name: str) -> None:
    """Have the job NAME run no more until it is resumed.

    It keeps its place in the queue. A build of it that runs goes on.

    \b
    Example:
      builder-client pause hello
    """
    if not changes.set_paused(options.remote(), name, paused=True):
        standard_output().line(f"{printable(name)} is paused already")
