"""``pause``: see the other one of ``pause`` and ``resume``."""

import click

from builder.model import printable
from builder_client import changes, draining, options
from builder_client.output import print_done, standard_output


@click.command("pause")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=options.completes("jobs"))
@draining.platform_option
@draining.reason_option
@draining.duration_option
@options.json_option
@options.server_options
def command(name: str | None, *, platform: str | None, reason: str | None, duration: int | None, as_json: bool) -> None:
    """Have a job or a queue run no more until it is resumed.

    A job keeps its place in the queue. A build that runs goes on. To pause a queue is to drain its platform.

    \b
    JSON: {done: "paused", job, changed}; changed: it was not so before; of a queue as of drain

    \b
    Examples:
      builder-client pause hello
      builder-client pause --platform debian-12 --reason 'mirror is down'
    """
    if (name is None) == (platform is None):
        raise click.UsageError("name either a job or a --platform")
    if platform is not None:
        wanted = draining.target(platform=platform)
        draining.drain(
            options.remote(), wanted, reason=reason, duration=duration, wait=False, as_json=as_json, done="paused"
        )
        return
    assert name is not None, "there is one of them"
    if reason is not None or duration is not None:
        raise click.UsageError("--reason and --for are for a --platform")
    is_new = changes.set_paused(options.remote(), name, paused=True)
    print_done("paused", as_json=as_json, job=name, changed=is_new)
    if not is_new and not as_json:
        standard_output().line(f"{printable(name)} is paused already")
