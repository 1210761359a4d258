"""An execution as it arrives, piece by piece: its files are staged, in memory that does not grow with it."""

from attrs import frozen

from builder import execution
from builder.errors import InvalidName, ProtocolError
from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd, ExecutionHead
from builder.model import Aborted, ConsoleLine, Result, check_artifact_path, raw
from builder.runtime.reversal import Reversal
from builder_web import directory
from builder_web.console_index import ConsoleIndex, ConsoleIndexer
from builder_web.directory import DataDirectory
from builder_web.receiving.facts import Facts
from builder_web.receiving.staging import ContentWriter, Staging
from builder_web.store.jobs import README as README_TAG
from builder_web.store.records import NewBuild, Readme, StoredArtifact, result_to_row
from builder_web.stored import README

MAX_ARTIFACTS = 20_000
"""Of one build: each has a row, and a file if nothing else has its content."""

_MAX_PLATFORM = 255
_MAX_README = 1024 * 1024
_MAX_CODE = 2**63 - 1


@frozen(kw_only=True)
class Head:
    """What is known of an execution before its console and artifacts have arrived."""

    uuid: str
    job: str


class Reception:
    """Takes the bytes of an execution. Its files are in ``staging`` from the head on.

    Everything raises ProtocolError and InvalidName for what can't be taken, OSError for what can't be written.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._reader = execution.ExecutionReader()
        self._console: Reversal | None = None
        self._index: ConsoleIndex | None = None
        self._end: ExecutionEnd | None = None
        self._platform = ""
        self._artifacts: list[StoredArtifact] = []
        self._paths: set[str] = set()
        self._open: tuple[str, ContentWriter] | None = None
        self._open_readme: tuple[str, bytearray] | None = None
        self._readme: tuple[str, Readme] | None = None
        self.head: Head | None = None
        self.staging: Staging | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        for event in self._reader.feed(data):
            match event:
                case ArtifactData(data=piece):
                    self._take(piece)
                case ConsoleLine():
                    self._add_line(event)
                case ArtifactStart():
                    self._finish_artifact()
                    self._begin_artifact(event.path)
                case ExecutionHead():
                    self._begin(event)
                case ExecutionEnd():
                    self._end_console(event)

    def close(self) -> None:
        """Close what is open; what is staged stays."""
        if self._open is not None:
            self._open[1].close()
        if self._console is not None:
            self._console.close()

    def finish(self) -> NewBuild:
        """Return the build that has arrived; all its files are durable where they are staged."""
        self._reader.finish()
        self._finish_artifact()
        assert self.head
        assert self.staging
        assert self._end
        assert self._index
        main = [file for file in self._artifacts if file.path.startswith("bin/")]
        main_binary = main[0] if len(main) == 1 else None
        main_position = 0
        if main_binary is not None:  # its row comes first, as the original's does
            main_position = self._artifacts.index(main_binary)
            self._artifacts.insert(0, self._artifacts.pop(main_position))
        self.staging.finish()
        facts = Facts(self._artifacts, self.staging.content)
        tags = facts.tags()
        readme_path, readme = self._readme or ("", None)
        if readme is not None:
            tags[README_TAG] = readme.content.decode("utf-8", "replace")
        return NewBuild(
            uuid=self.head.uuid,
            job=self.head.job,
            platform=self._platform,
            started=self._end.started,
            finished=self._end.finished,
            result=_storable(self._end.result),
            console=self._index,
            artifacts=tuple(self._artifacts),
            main_binary=main_binary.path if main_binary else None,
            main_position=main_position,
            readme=readme if readme_path == README else None,
            input_id=facts.input_id(),
            tags=tags,
            solo5=facts.solo5(main_binary) if main_binary else None,
        )

    def _begin(self, event: ExecutionHead) -> None:
        directory.check_job(event.job.name)
        self._platform = check_platform(event.job.platform)
        self.head = Head(uuid=str(event.uuid), job=event.job.name)
        self.staging = Staging.begin(self._directory, job=self.head.job, uuid=self.head.uuid)
        self.staging.script.write_bytes(event.job.script)
        self._console = Reversal(self.staging.path)

    def _add_line(self, line: ConsoleLine) -> None:
        assert self._console
        self._console.add(b"%.3fs:%b\n" % (line.delta / 1e9, line.line))

    def _end_console(self, event: ExecutionEnd) -> None:
        assert self._console
        assert self.staging
        self._end = event
        indexer = ConsoleIndexer()
        with self.staging.console.open("wb") as file:
            for piece in self._console.pieces():
                indexer.add(piece)
                file.write(piece)
        self._index = indexer.finish()
        self._console.close()

    def _begin_artifact(self, path: str) -> None:
        assert self.staging
        check_artifact_path(path)
        if not path.isprintable() and any("\ud800" <= char <= "\udfff" for char in path):
            raise InvalidName("invalid artifact path: it is not UTF-8")
        if path in self._paths:
            raise InvalidName(f"two artifacts with the path {path!r}")
        if len(self._paths) == MAX_ARTIFACTS:
            raise ProtocolError(f"more than {MAX_ARTIFACTS} artifacts")
        self._paths.add(path)
        name = path.rpartition("/")[2]
        if name == README:
            self._open_readme = (path, bytearray())
        elif not name.endswith(".build-hashes"):
            self._open = (path, self.staging.new_content())

    def _take(self, data: bytes) -> None:
        if self._open is not None:
            self._open[1].write(data)
        elif self._open_readme is not None:
            self._open_readme[1].extend(data[: _MAX_README - len(self._open_readme[1])])

    def _finish_artifact(self) -> None:
        if self._open is not None:
            path, writer = self._open
            content = writer.finish()
            self._artifacts.append(StoredArtifact(path=path, digest=content.digest, size=content.size))
            self._open = None
        elif self._open_readme is not None:
            path, text = self._open_readme
            # of several the one that is least deep
            if self._readme is None or _depth(path) < _depth(self._readme[0]):
                self._readme = (path, Readme(position=len(self._artifacts), content=bytes(text)))
            self._open_readme = None


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path


def check_platform(platform: str) -> str:
    """Return the platform. Raises InvalidName for one that no page could show."""
    if not platform or len(platform) > _MAX_PLATFORM or not platform.isprintable():
        raise InvalidName("invalid platform: it is empty, too long, or no text")
    return platform


def _storable(result: Result) -> Result:
    if isinstance(result, Aborted):
        return Aborted(message=raw(result.message).decode("utf-8", "replace"))
    if abs(result_to_row(result)[0]) > _MAX_CODE:
        raise ProtocolError("the result is a number out of range")
    return result
