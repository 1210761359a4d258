"""``result``: what became of a build, and its artifacts."""

import itertools

import click

from builder.model import printable
from builder_client import clock, options, past, uploads
from builder_client.output import json_text, standard_output

_NOT_UPLOADED = "pending", "failed"


@click.command("result")
@options.build_argument
@click.option("--limit", type=click.IntRange(0), help="At most so many artifacts.  [default: all]")
@options.json_option
@options.server_options
def command(build: str, limit: int | None, *, as_json: bool) -> None:
    """Show what became of the build ID, and its artifacts.

    ID is a uuid, or the begin of one that only one build has. "since" is the last success before it, which "changed" is
    about: 'compare ID' shows what it is.

    \b
    JSON, one object per line:
      {type: "build", has_artifacts, console_size, absent, uploads, …} with the keys of history; has_artifacts: fetch has
        them; absent: the server that has all that, null: it answers;
        uploads, with the keys of uploads: those of a build that some receiver is still to get
      {type: "artifact", path, size, sha256}

    \b
    Examples:
      builder-client result 323b
      builder-client result 323b --json | jq -r 'select(.type == "artifact") | .path'
    """
    remote = options.remote()
    printer = standard_output()
    shown = past.find(remote, build, what="result")
    uuid = past.uuid_of(shown)
    waiting = list(uploads.entries(remote, build=uuid)) if shown.entry.upload in _NOT_UPLOADED else []
    if as_json:
        head = {"type": "build", "has_artifacts": shown.has_record, "console_size": shown.console_size}
        head["absent"] = shown.absent and json_text(shown.absent)
        printer.json(head | past.json(shown.entry) | {"uploads": [uploads.json(each) for each in waiting]})
    else:
        for name, value in past.lines(shown.entry):
            printer.line(f"{name + ':':<11} {value}")
        if shown.absent is not None:
            printer.line(f"{'server:':<11} {printable(shown.absent)} has console and artifacts, and does not answer")
        for each in waiting:
            printer.line(f"{'upload:':<11} {uploads.line(each, clock.now())}")
    for artifact in itertools.islice(past.artifacts(remote, uuid, what="result"), limit):
        if as_json:
            found = {"path": json_text(artifact.path), "size": artifact.size, "sha256": artifact.sha256.hex()}
            printer.json({"type": "artifact"} | found)
        else:
            printer.line(f"{artifact.sha256.hex()} {artifact.size:>10} {printable(artifact.path)}")
