"""``dequeue``: take a job from the queues."""

import click

from builder.extension.builds import Dequeue, Dequeued
from builder.model import printable
from builder_client import options
from builder_client.output import json_text, standard_output


@click.command("dequeue")
@options.job_argument
@options.platform_option
@options.yes_option
@options.json_option
@options.server_options
def command(name: str, platform: str | None, *, yes: bool, as_json: bool) -> None:
    """Take the job NAME from the queues; it stays scheduled.

    What runs goes on, and it is queued again when it is due. On a terminal it asks before.

    \b
    JSON, one object: {platforms: [the platforms in whose queues it was]}

    \b
    Examples:
      builder-client dequeue hello
      builder-client dequeue retreat --platform debian-12
    """
    remote = options.remote()
    where = "the queues" if platform is None else f"the queue of {printable(platform)}"
    options.confirm(f"Take the job {printable(name)} from {where} of {remote}?", yes=yes)
    printer = standard_output()
    for reply in remote.request(Dequeue(name=name, platform=platform), what="dequeue"):
        assert isinstance(reply, Dequeued), "the order of messages sees to it"
        if as_json:
            printer.json({"platforms": [json_text(each) for each in reply.platforms]})
        else:
            printer.line(f"No longer queued on {', '.join(map(printable, reply.platforms))}")
