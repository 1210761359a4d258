"""``uploads``: what is still to be uploaded, and what was refused."""

import click

from builder_client import clock, options, uploads
from builder_client.output import standard_output


@click.command("uploads")
@click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")
@options.json_option
@options.color_option
@options.server_options
def command(limit: int | None, *, as_json: bool, color: str) -> None:
    """Show which uploads are pending or refused, and why.

    The oldest build comes first. What is pending is tried again by itself, after pauses that grow up to an hour. What
    the receiver has refused waits for 'retry-upload' or 'drop-upload', and so does what is pending at a receiver that the server was
    started without.

    \b
    JSON, one object per line:
      {uuid, job, platform, receiver, known, state, ended, attempts, tried, next_attempt, reason}
      state: pending, refused; known: whether the server uploads to that receiver; attempts: those that failed;
      next_attempt: null where it is tried in its turn, or not again

    \b
    Examples:
      builder-client uploads
      builder-client uploads --json | jq -r 'select(.state == "refused") | .uuid'
    """
    printer = standard_output(color)
    found = uploads.entries(options.remote(), limit=limit)
    if as_json:
        for entry in found:
            printer.json(uploads.json(entry))
    else:
        now = clock.now()
        printer.table("Uploads", uploads.COLUMNS, [uploads.row(entry, now) for entry in found], empty="none waits")
