"""``fetch``: the artifacts of a build."""

import contextlib

import click

from builder.errors import BuilderError
from builder.execution import ArtifactData, ArtifactsReader, ArtifactStart
from builder.extension.builds import ArtifactsPiece, FetchArtifacts
from builder.model import printable
from builder_client import options, past
from builder_client.extraction import Extraction, NotWritten
from builder_client.output import note, standard_output


@click.command("fetch")
@options.build_argument
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--force", is_flag=True, help="Replace files that exist.")
@options.json_option
@options.server_options
def command(build: str, directory: str, *, force: bool, as_json: bool) -> None:
    """Write the artifacts of the build ID below the directory DIR.

    ID is a uuid, or the begin of one that only one build has. The server has them until they are uploaded or removed.
    Nothing is written outside of DIR, whatever the paths of the artifacts and what lies there say. What could not be
    written is named, and the exit status is 1 then.

    \b
    JSON, one object: {uuid, written, not_written}, numbers of artifacts

    \b
    Examples:
      builder-client fetch 323b /tmp/hello
      builder-client fetch 323b . --force
    """
    remote = options.remote()
    uuid = past.uuid_of(past.find(remote, build, what="fetch"))
    try:
        extraction = Extraction(directory, force=force)
    except OSError as error:
        raise BuilderError(f"can't write to {printable(directory)}: {error.strerror}") from error
    written = _Written(extraction)
    with contextlib.closing(extraction):
        reader = ArtifactsReader()
        for reply in remote.stream(FetchArtifacts(uuid=uuid), what="fetch"):
            assert isinstance(reply, ArtifactsPiece), "the order of messages sees to it"
            for event in reader.feed(reply.data):
                match event:
                    case ArtifactStart(path=path):
                        written.start(path)
                    case ArtifactData(data=data):
                        written.write(data)
        reader.finish()
        written.finish()
    printer = standard_output()
    if as_json:
        printer.json({"uuid": str(uuid), "written": written.count, "not_written": written.failures})
    else:
        printer.line(f"Wrote {written.count} of {written.count + written.failures} artifacts to {printable(directory)}")
    if written.failures:
        raise BuilderError(f"{written.failures} of the artifacts could not be written")


class _Written:
    """Writes artifacts, and counts those that are written and those that can't be."""

    def __init__(self, extraction: Extraction) -> None:
        self._extraction = extraction
        self._path: str | None = None
        self.count = self.failures = 0

    def start(self, path: str) -> None:
        """Begin an artifact; the one before it is complete."""
        self.finish()
        self._path = path
        try:
            self._extraction.start(path)
        except NotWritten as error:
            self._fail(error)

    def write(self, data: bytes) -> None:
        """Append to it. Raises BuilderError where the disk takes no more."""
        try:
            self._extraction.write(data)
        except OSError as error:
            raise BuilderError(f"can't write {printable(self._path or '')}: {error.strerror}") from error

    def finish(self) -> None:
        """End the artifact, if there is one."""
        if self._path is None:
            return
        try:
            self._extraction.complete()
        except NotWritten as error:
            self._fail(error)
        else:
            self.count += 1
            self._path = None

    def _fail(self, error: NotWritten) -> None:
        note(f"not written: {printable(self._path or '')}: {error}")
        self.failures += 1
        self._path = None
