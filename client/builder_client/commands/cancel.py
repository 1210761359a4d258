"""``cancel``: end running builds."""

import click

from builder.extension.builds import BuildCancelled, CancelBuilds
from builder.model import printable
from builder_client import options
from builder_client.output import json_text, standard_output


@click.command("cancel")
@click.argument("target", metavar="ID|JOB", shell_complete=options.completes("running_jobs"))
@options.platform_option
@options.json_option
@options.yes_option
@options.server_options
def command(target: str, platform: str | None, *, as_json: bool, yes: bool) -> None:
    """End a running build, or all of a job.

    ID is a uuid, or the begin of one that only one running build has; where a job is called so, it is the job.
    The job is killed at once, and not run again before it is due. The result is "aborted: cancelled by ADDRESS".
    On a terminal it asks before.

    \b
    JSON, one object per line: {uuid, job, platform, by}; by: who had cancelled it before, null: nobody

    \b
    Examples:
      builder-client cancel 323b
      builder-client cancel retreat --platform debian-12
    """
    remote = options.remote()
    options.confirm(f"End what runs of {printable(target)} at {remote}?", yes=yes)
    printer = standard_output()
    for reply in remote.request(CancelBuilds(target=target, platform=platform), what="cancel"):
        assert isinstance(reply, BuildCancelled), "the order of messages sees to it"
        if as_json:
            value = {"uuid": str(reply.uuid), "job": json_text(reply.name), "platform": json_text(reply.platform)}
            printer.json(value | {"by": reply.by and json_text(reply.by)})
            continue
        what = f"{printable(reply.name)} on {printable(reply.platform)} ({reply.uuid})"
        if reply.by is None:
            printer.line(f"Cancelled {what}")
        else:
            printer.line(f"{what} is to end already: it was cancelled by {printable(reply.by)}")
