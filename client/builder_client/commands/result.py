"""``result``: what became of a build, and its artifacts."""

import itertools
from collections.abc import Iterator
from uuid import UUID

import click

from builder.extension import MAX_PAGE
from builder.extension.builds import ArtifactEntry, ArtifactsListed, ListArtifacts
from builder.model import printable
from builder_client import options, past
from builder_client.output import json_text, standard_output
from builder_client.remote import Remote


@click.command("result")
@options.build_argument
@click.option("--limit", type=click.IntRange(0), help="At most so many artifacts.  [default: all]")
@options.json_option
@options.server_options
def command(build: str, limit: int | None, *, as_json: bool) -> None:
    """Show what became of the build ID, and its artifacts.

    ID is a uuid, or the begin of one that only one build has.

    \b
    JSON, one object per line:
      {type: "build", has_artifacts, console_size, …} with the keys of history; has_artifacts: fetch has them
      {type: "artifact", path, size, sha256}

    \b
    Examples:
      builder-client result 323b
      builder-client result 323b --json | jq -r 'select(.type == "artifact") | .path'
    """
    remote = options.remote()
    printer = standard_output()
    shown = past.find(remote, build, what="result")
    if as_json:
        head = {"type": "build", "has_artifacts": shown.has_record, "console_size": shown.console_size}
        printer.json(head | past.json(shown.entry))
    else:
        for name, value in past.lines(shown.entry):
            printer.line(f"{name + ':':<11} {value}")
    for artifact in itertools.islice(_artifacts(remote, past.uuid_of(shown)), limit):
        if as_json:
            found = {"path": json_text(artifact.path), "size": artifact.size, "sha256": artifact.sha256.hex()}
            printer.json({"type": "artifact"} | found)
        else:
            printer.line(f"{artifact.sha256.hex()} {artifact.size:>10} {printable(artifact.path)}")


def _artifacts(remote: Remote, uuid: UUID) -> Iterator[ArtifactEntry]:
    behind = ""
    while True:
        (page,) = remote.request(ListArtifacts(uuid=uuid, count=MAX_PAGE, behind=behind), what="result")
        assert isinstance(page, ArtifactsListed), "the order of messages sees to it"
        if not page.artifacts:
            return
        yield from page.artifacts
        behind = page.artifacts[-1].path
