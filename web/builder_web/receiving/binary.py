"""A binary that arrives alone, and becomes a build with a script that says so."""

from builder.model import Instant, Result
from builder_web.console_index import ConsoleIndexer
from builder_web.directory import DataDirectory
from builder_web.receiving.execution import Head
from builder_web.receiving.facts import Facts
from builder_web.receiving.staging import ContentWriter, Staging
from builder_web.store.records import NewBuild, StoredArtifact

_SCRIPT = b"# This artifact was manually built\n"


class BinaryReception:
    """Takes the bytes of a binary. Everything raises OSError."""

    def __init__(
        self, directory: DataDirectory, *, uuid: str, job: str, platform: str, path: str, now: Instant, result: Result
    ) -> None:
        self.head = Head(uuid=uuid, job=job)
        self.staging: Staging | None = None
        self._directory = directory
        self._platform = platform
        self._path = path
        self._now = now
        self._result = result
        self._writer: ContentWriter | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._begin()[1].write(data)

    def _begin(self) -> tuple[Staging, ContentWriter]:
        if self.staging is None:
            self.staging = Staging.begin(self._directory, job=self.head.job, uuid=self.head.uuid)
        if self._writer is None:
            self._writer = self.staging.new_content()
        return self.staging, self._writer

    def close(self) -> None:
        """Close what is open; what is staged stays."""
        if self._writer is not None:
            self._writer.close()

    def finish(self) -> NewBuild:
        """Return the build; all its files are durable where they are staged."""
        staging, writer = self._begin()
        content = writer.finish()
        staging.script.write_bytes(_SCRIPT)
        staging.console.touch()
        staging.finish()
        main = StoredArtifact(path=self._path, digest=content.digest, size=content.size)
        return NewBuild(
            uuid=self.head.uuid,
            job=self.head.job,
            platform=self._platform,
            started=self._now,
            finished=self._now,
            result=self._result,
            console=ConsoleIndexer().finish(),
            artifacts=(main,),
            main_binary=main.path,
            input_id=None,
            tags={},
            solo5=Facts([main], staging.content).solo5(main),
        )
