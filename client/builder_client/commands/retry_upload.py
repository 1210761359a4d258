"""``retry-upload``: try uploads again now."""

import click

from builder.extension.uploads import RetryUploads, UploadsRetried
from builder_client import options, words
from builder_client.output import standard_output


@click.command("retry-upload")
@click.argument(
    "build",
    metavar="[ID]",
    required=False,
    callback=options.by(words.parse_id),
    shell_complete=options.completes("builds"),
)
@click.option("--all", "everything", is_flag=True, help="All that is pending or refused.")
@options.json_option
@options.server_options
def command(build: str | None, *, everything: bool, as_json: bool) -> None:
    """Try the upload of the build ID again now, or all.

    ID is a uuid, or the begin of one that only one build has. A build that was to go to none of the receivers that the
    server has goes to all of them: one that ended before there was any, or before they got other addresses.

    \b
    JSON, one object: {count}, the number of uploads that are tried again

    \b
    Examples:
      builder-client retry-upload 323b
      builder-client retry-upload --all
    """
    if (build is None) is not everything:
        raise click.UsageError("name a build, or --all of them")
    printer = standard_output()
    for reply in options.remote().request(RetryUploads(target=build), what="retry-upload"):
        assert isinstance(reply, UploadsRetried), "the order of messages sees to it"
        if as_json:
            printer.json({"count": reply.count})
        else:
            again = "is" if reply.count == 1 else "are"
            printer.line(f"{words.count(reply.count, 'upload')} {again} tried again; 'uploads' shows what comes of it")
