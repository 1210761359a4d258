"""``unschedule``: remove a job."""

import click

from builder.messages import Unschedule
from builder.model import printable
from builder_client import options
from builder_client.output import print_done


@click.command("unschedule")
@options.job_argument
@options.yes_option
@options.json_option
@options.server_options
def command(name: str, *, yes: bool, as_json: bool) -> None:
    """Remove the job NAME from the schedule and the queues.

    On a terminal it asks before.

    \b
    JSON: {done: "unscheduled", job}

    \b
    Examples:
      builder-client unschedule hello
      builder-client unschedule hello --yes
    """
    remote = options.remote()
    options.confirm(f"Remove the job {printable(name)} from the schedule and the queues of {remote}?", yes=yes)
    remote.ask(Unschedule(name=name))
    print_done("unscheduled", as_json=as_json, job=name)
