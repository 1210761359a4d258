"""``resume``: see the other one of ``pause`` and ``resume``."""

import click

from builder.model import printable
from builder_client import changes, options
from builder_client.output import print_done, standard_output


@click.command("resume")
@options.job_argument
@options.json_option
@options.server_options
def command(name: str, *, as_json: bool) -> None:
    """Let the paused job NAME run again.

    If it is queued, it runs as soon as a worker is free.

    \b
    JSON: {done: "resumed", job, changed}; changed: it was not so before

    \b
    Example:
      builder-client resume hello
    """
    is_new = changes.set_paused(options.remote(), name, paused=False)
    print_done("resumed", as_json=as_json, job=name, changed=is_new)
    if not is_new and not as_json:
        standard_output().line(f"{printable(name)} is not paused")
