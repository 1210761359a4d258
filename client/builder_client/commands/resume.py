"""``resume``: ends what ``pause`` and ``drain`` have begun."""

import click

from builder.model import printable
from builder_client import changes, draining, options
from builder_client.errors import Refused
from builder_client.output import print_done, standard_output


@click.command("resume")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=options.completes("jobs"))
@draining.at_option
@draining.platform_option
@draining.drained_worker_option
@options.json_option
@options.server_options
def command(name: str | None, *, at: str | None, platform: str | None, worker: str | None, as_json: bool) -> None:
    """Let what was paused, or drained, have jobs run again.

    With NAME that is a job; without, it is all servers, or else the server, the platform or the worker that is named. A job
    that is queued runs as soon as a worker is free.

    \b
    JSON: {done: "resumed", job, changed}; changed: it was not so before
      of what was drained: {done: "resumed", scope, name}

    \b
    Examples:
      builder-client resume hello
      builder-client resume
      builder-client resume --worker box-1
      builder-client resume --at build-2
    """
    if name is None:
        wanted = draining.target(server=at, platform=platform, worker=worker)
        draining.resume(options.remote(), wanted, as_json=as_json)
        return
    if (at, platform, worker) != (None, None, None):
        raise click.UsageError("name a job, or what was drained")
    remote = options.remote()
    try:
        is_new = changes.set_paused(remote, name, paused=False)
    except Refused as error:
        if what_to_do := draining.meant(remote, name):
            raise Refused(f"there is no job {printable(name)}; {what_to_do}") from error
        raise
    print_done("resumed", as_json=as_json, job=name, changed=is_new)
    if not is_new and not as_json:
        standard_output().line(f"{printable(name)} is not paused")
