"""``unschedule``: remove a job."""

import click

from builder.messages import Unschedule
from builder_client import options


@click.command("unschedule")
@options.job_argument
@options.server_options
def command(name: str) -> None:
    """Remove the job NAME from the schedule and the queues.

    \b
    Example:
      builder-client unschedule hello
    """
    options.remote().ask(Unschedule(name=name))
