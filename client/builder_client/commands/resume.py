"""``resume``: see the other one of ``pause`` and ``resume``."""

import click

from builder.model import printable
from builder_client import changes, options
from builder_client.output import standard_output


@click.command("resume")
@options.job_argument
@options.server_options
def command(name: str) -> None:
    """Let the paused job NAME run again.

    If it is queued, it runs as soon as a worker is free.

    \b
    Example:
      builder-client resume hello
    """
    if not changes.set_paused(options.remote(), name, paused=False):
        standard_output().line(f"{printable(name)} is not paused")
