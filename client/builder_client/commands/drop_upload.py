"""``drop-upload``: have a build uploaded nowhere any more."""

import click

from builder.extension.uploads import DropUpload
from builder_client import options
from builder_client.output import print_done


@click.command("drop-upload")
@options.build_argument
@options.json_option
@options.yes_option
@options.server_options
def command(build: str, *, as_json: bool, yes: bool) -> None:
    """Give the upload of the build ID up, pending or refused.

    ID is a uuid, or the begin of one that only one build has. Its record stays on the server's disk for as long as any other
    build is kept, and 'retry-upload ID' has it uploaded after all. On a terminal it asks before.

    \b
    JSON, one object: {done: "dropped", build}

    \b
    Example:
      builder-client drop-upload 323b
    """
    remote = options.remote()
    options.confirm(f"Have the build {build} uploaded nowhere by {remote}?", yes=yes)
    remote.request(DropUpload(target=build), what="drop-upload")
    print_done("dropped", as_json=as_json, build=build)
