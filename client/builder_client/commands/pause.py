"""``pause``: see the other one of ``pause`` and ``resume``."""

import click

from builder.model import printable
from builder_client import changes, options
from builder_client.output import print_done, standard_output


@click.command("pause")
@options.job_argument
@options.json_option
@options.server_options
def command(name: str, *, as_json: bool) -> None:
    """Have the job NAME run no more until it is resumed.

    It keeps its place in the queue. A build of it that runs goes on.

    \b
    JSON: {done: "paused", job, changed}; changed: it was not so before

    \b
    Example:
      builder-client pause hello
    """
    is_new = changes.set_paused(options.remote(), name, paused=True)
    print_done("paused", as_json=as_json, job=name, changed=is_new)
    if not is_new and not as_json:
        standard_output().line(f"{printable(name)} is paused already")
