"""``fetch``: the artifacts of a build."""

import contextlib
import hashlib
from typing import TYPE_CHECKING
from uuid import UUID

import click

from builder.errors import BuilderError
from builder.execution import ArtifactData, ArtifactsReader, ArtifactStart
from builder.extension.builds import ArtifactsPiece, FetchArtifacts
from builder.extension.provenance import ProvenanceShown, ShowProvenance
from builder.model import printable
from builder.provenance import FILE_NAME
from builder.reasons import reason_of
from builder_client import options, past
from builder_client.errors import Refused
from builder_client.extraction import Extraction, NotWritten
from builder_client.output import note, standard_output

if TYPE_CHECKING:
    from builder_client.remote import Remote

_ADVICE = "fetch it again; if it still differs, the server's copy is damaged: run the job again"

_SIZE_BYTES = 8


@click.command("fetch")
@options.build_argument
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--force", is_flag=True, help="Replace files that exist.")
@options.json_option
@options.server_options
def command(build: str, directory: str, *, force: bool, as_json: bool) -> None:
    """Write the artifacts of the build ID below DIR.

    ID is a uuid, or the begin of one that only one build has. The server has them until they are uploaded or removed.
    Nothing is written outside of DIR, whatever the paths of the artifacts and what lies there say. A file has its name
    once all of it is there, and its size and SHA-256 are those that the server has recorded. What could not be written
    is named, and the exit status is 1 then.

    What the server has signed of the build is written beside them, to UUID.provenance.json; 'builder-inspect verify' holds
    the artifacts against it.

    \b
    JSON, one object: {uuid, written, not_written, numbers of artifacts, provenance: file or null}

    \b
    Examples:
      builder-client fetch 323b /tmp/hello
      builder-client fetch 323b . --force
    """
    remote = options.remote()
    shown = past.find(remote, build, what="fetch")
    uuid = past.uuid_of(shown)
    if not shown.has_record:  # refused, and the server says why: before a folder is made
        next(remote.stream(FetchArtifacts(uuid=uuid), what="fetch"), None)
    try:
        extraction = Extraction(directory, force=force)
    except OSError as error:
        raise BuilderError(f"can't write to {printable(directory)}: {error.strerror}") from error
    if shown.entry.artifacts is None:
        note("the server has not recorded the hashes of this build: what comes is not checked")
    written = _Written(extraction, None if shown.entry.artifacts is None else _recorded(remote, uuid))
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
        written.end()
        provenance = _fetch_provenance(remote, uuid, extraction)
    printer = standard_output()
    if as_json:
        printer.json(
            {"uuid": str(uuid), "written": written.count, "not_written": written.failures, "provenance": provenance}
        )
    else:
        printer.line(f"Wrote {written.count} of {written.count + written.failures} artifacts to {printable(directory)}")
    if written.failures:
        raise BuilderError(f"{written.failures} of the artifacts could not be written")


def _fetch_provenance(remote: "Remote", uuid: UUID, extraction: Extraction) -> str | None:
    """Write what the server has signed of the build; return the name of the file, if there is any."""
    name = f"{uuid}.{FILE_NAME}"
    try:
        (reply,) = remote.request(ShowProvenance(uuid=uuid), what="fetch")
        assert isinstance(reply, ProvenanceShown), "the order of messages sees to it"
        if reply.envelope is None:
            return None
        extraction.start(name)
        extraction.write(reply.envelope)
        extraction.complete()
    except (Refused, NotWritten, OSError) as error:
        note(f"what the server has signed is not written: {reason_of(error)}")
        return None
    return name


def _recorded(remote: "Remote", uuid: UUID) -> dict[str, bytes]:
    """Return size and hash of each artifact, packed: there may be a million."""
    return {each.path: _packed(each.size, each.sha256) for each in past.artifacts(remote, uuid, what="fetch")}


def _packed(size: int, sha256: bytes) -> bytes:
    return size.to_bytes(_SIZE_BYTES, "big") + sha256


def _said(packed: bytes) -> str:
    return f"{int.from_bytes(packed[:_SIZE_BYTES], 'big')} bytes with the SHA-256 {packed[_SIZE_BYTES:].hex()}"


class _Written:
    """Writes artifacts that are as they were recorded, and counts them and those that can't be written.

    ``recorded`` has those that are still to come; None: nothing is known of them.
    """

    def __init__(self, extraction: Extraction, recorded: dict[str, bytes] | None) -> None:
        self._extraction = extraction
        self._recorded = recorded
        self._path: str | None = None
        self._size = 0
        self._sha256 = hashlib.sha256()
        self.count = self.failures = 0

    def start(self, path: str) -> None:
        """Begin an artifact; the one before it is complete."""
        self._finish()
        self._path = path
        self._size = 0
        self._sha256 = hashlib.sha256()
        try:
            self._extraction.start(path)
        except NotWritten as error:
            if self._recorded is not None:
                self._recorded.pop(path, None)
            self._fail(error)

    def write(self, data: bytes) -> None:
        """Append to it. Raises BuilderError where the disk takes no more."""
        if self._path is None:
            return
        self._size += len(data)
        self._sha256.update(data)
        try:
            self._extraction.write(data)
        except OSError as error:
            raise BuilderError(f"can't write {printable(self._path)}: {error.strerror}") from error

    def end(self) -> None:
        """End the last artifact: there are no more."""
        self._finish()
        for path in self._recorded or ():
            self._path = path
            self._fail(NotWritten(f"it did not come, though the server has recorded it: {_ADVICE}"))

    def _finish(self) -> None:
        if self._path is None:
            return
        try:
            self._check(self._path)
            self._extraction.complete()
        except NotWritten as error:
            self._extraction.abandon()
            self._fail(error)
        else:
            self.count += 1
            self._path = None

    def _check(self, path: str) -> None:
        """Raise NotWritten unless it is as it was recorded."""
        if self._recorded is None:
            return
        came, recorded = _packed(self._size, self._sha256.digest()), self._recorded.pop(path, None)
        if came != recorded:
            what = "nothing of that name" if recorded is None else _said(recorded)
            raise NotWritten(f"{_said(came)} came, and the server has recorded {what}: {_ADVICE}")

    def _fail(self, error: NotWritten) -> None:
        note(f"not written: {printable(self._path or '')}: {error}")
        self.failures += 1
        self._path = None
