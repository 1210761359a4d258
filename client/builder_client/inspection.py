"""Reading an execution and showing what is wanted of it."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, ClassVar

from attrs import frozen

from builder.errors import BuilderError, NobodyReads, ProtocolError
from builder.execution import (
    ArtifactData,
    ArtifactStart,
    Event,
    ExecutionEnd,
    ExecutionHead,
    read_execution,
)
from builder.model import ConsoleLine, printable, raw
from builder.provenance import FILE_NAME
from builder.reasons import reason_of
from builder.sizes import format_size

from . import words
from .extraction import Extraction
from .listing import ArtifactListing, ArtifactRecord, ConsoleListing
from .output import JsonObject, Printer, json_bytes, json_text, to_json
from .report import line_json, result_json

_JSON_SEPARATOR = b",\n"
_NEXT = "\n"
"""Between the text of one file and the name of the next, as `head` prints several."""


class Unreadable(BuilderError):
    """A file can't be opened, or read to its end."""

    exit_code: ClassVar[int] = 2


class SomeNotWritten(BuilderError):
    """Some artifacts were not written; each has been named."""


@frozen(kw_only=True)
class Wanted:
    """What is to be shown. Where it is no single part, it is the summary."""

    job: bool
    script: bool
    console: bool
    times: bool
    as_json: bool

    @property
    def summary(self) -> bool:
        """Whether the execution as a whole is to be shown to a person."""
        return not (self.job or self.script or self.console or self.as_json)


@frozen(kw_only=True)
class Contents:
    """An execution that was read to its end."""

    head: ExecutionHead
    end: ExecutionEnd
    console: ConsoleListing
    artifacts: ArtifactListing

    @property
    def duration_ms(self) -> int:
        """Milliseconds from the start to the end."""
        return self.end.finished.ms - self.end.started.ms


@frozen(kw_only=True)
class _Source:
    """A file by its path, ``-`` for standard input, and whether it is one of several, so that its path is told."""

    path: str
    several: bool

    def __str__(self) -> str:
        return "<stdin>" if self.path == "-" else printable(self.path)

    @property
    def where(self) -> str:
        """How a sentence about a part of it begins."""
        return f"{self}: " if self.several else ""

    def json(self) -> JsonObject:
        """How an object for it begins."""
        return json_bytes("file", os.fsencode(self.path))

    def open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open it. Raises Unreadable."""
        if self.path == "-":
            if sys.stdin is None:  # the program was started with it closed
                raise Unreadable("standard input is closed")
            return contextlib.nullcontext(sys.stdin.buffer)
        try:
            return open(self.path, "rb")  # noqa: PTH123  the path as it was given; the caller closes it
        except OSError as error:
            raise self._unreadable(error) from error

    def events(self, file: BinaryIO) -> Iterator[Event]:
        """Read what is in it. Raises Unreadable and ProtocolError."""
        try:
            yield from read_execution(file)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> Unreadable:
        return Unreadable(f"can't read {self}: {reason_of(error)}")


def inspect(
    files: Sequence[str],
    wanted: Wanted,
    printer: Printer,
    tell: Callable[[str], None],
    *,
    output: str | None,
    force: bool,
) -> int:
    """Show the executions in files, write their artifacts below ``output`` where that is given, return an exit status.

    The artifacts of one of several go to a folder that is named as its uuid. A file that can't be shown goes to ``tell``
    and does not hide the others; in JSON it has an object of its own. The status is the highest of all.
    """
    status = shown = 0
    for path in files:
        source = _Source(path=path, several=len(files) > 1)
        try:
            with source.open() as file:
                _inspect(file, source, wanted, printer, first=not shown, output=output, force=force)
        except NobodyReads:
            raise
        except BuilderError as error:
            if wanted.as_json and not isinstance(error, SomeNotWritten):
                printer.json(source.json() | {"error": json_text(str(error))})
            printer.flush()  # where both end in one place, what is said stays in order
            tell(str(error))
            status = max(status, error.exit_code)
            shown += isinstance(error, SomeNotWritten)
        else:
            shown += 1
    return status


def _inspect(
    file: BinaryIO,
    source: _Source,
    wanted: Wanted,
    printer: Printer,
    *,
    first: bool,
    output: str | None,
    force: bool,
) -> None:
    """Show one. Raises ProtocolError for a damaged file before anything is shown, SomeNotWritten at the end."""
    with contextlib.ExitStack() as stack:
        extraction = Extraction(output, force=force) if output is not None else None
        if extraction is not None:
            stack.callback(extraction.close)
        text = _TextForm(printer, times=wanted.times)
        separator = _JSON_SEPARATOR if wanted.as_json else b""
        console = ConsoleListing(form=_line_json if wanted.as_json else text.line, separator=separator)
        stack.callback(console.close)
        artifacts = ArtifactListing(
            form=_JsonForm(extracted=extraction is not None).artifact if wanted.as_json else text.artifact,
            separator=separator,
            extraction=extraction,
            where=source.where,
        )
        stack.callback(artifacts.close)
        try:
            contents = _read(
                source.events(file),
                console,
                artifacts,
                keep_console=wanted.console,
                keep_artifacts=wanted.summary or wanted.as_json or extraction is not None,
                folders=extraction if source.several else None,
            )
        except ProtocolError as error:
            hint = "; 'builder-inspect verify' reads provenance" if str(source).endswith(FILE_NAME) else ""
            raise ProtocolError(f"{source} is damaged or no execution: {error}{hint}") from error
        if wanted.as_json:
            _print_json(printer, source, contents, wanted)
        else:
            if source.several:
                printer.line(f"{'' if first else _NEXT}==> {source} <==")
            _print_text(printer, contents, wanted)
        if artifacts.not_written:
            count = words.count(artifacts.count, "artifact")
            raise SomeNotWritten(f"{source.where}{artifacts.not_written} of {count} not written")


def _read(
    events: Iterator[Event],
    console: ConsoleListing,
    artifacts: ArtifactListing,
    *,
    keep_console: bool,
    keep_artifacts: bool,
    folders: Extraction | None,
) -> Contents:
    head: ExecutionHead | None = None
    end: ExecutionEnd | None = None
    for event in events:
        match event:
            case ExecutionHead():
                head = event
                if folders is not None:
                    folders.enter(str(head.uuid))
            case ConsoleLine():
                console.add(event, keep=keep_console)
            case ExecutionEnd():
                end = event
            case ArtifactStart() if keep_artifacts:
                artifacts.start(event)
            case ArtifactData(data=data) if keep_artifacts:
                artifacts.data(data)
    artifacts.finish()
    assert head is not None  # for the reader was complete
    assert end is not None
    return Contents(head=head, end=end, console=console, artifacts=artifacts)


# --- for people ----------------------------------------------------------------------------------------------------


class _TextForm:
    """How entries of lists look to people."""

    def __init__(self, printer: Printer, *, times: bool) -> None:
        self._printer = printer
        self._times = times

    def line(self, line: ConsoleLine) -> bytes:
        """Return a line of the console."""
        prefix = f"{words.since_start(line.delta)} ".encode("ascii") if self._times else b""
        return prefix + self._printer.foreign(line.line) + b"\n"

    def artifact(self, artifact: ArtifactRecord) -> bytes:
        """Return a line of the list of artifacts."""
        line = f"{artifact.sha256}  {artifact.size:>12}  {printable(artifact.path)}\n"
        return line.encode("utf-8", "backslashreplace")


def _print_text(printer: Printer, contents: Contents, wanted: Wanted) -> None:
    if wanted.job or wanted.summary:
        _print_pairs(printer, _job_pairs(contents))
    if wanted.summary:
        _print_pairs(printer, _summary_pairs(contents))
        _write(printer, contents.artifacts.pieces())
    if wanted.script:
        script = contents.head.job.script
        printer.write(b"\n".join(printer.foreign(line) for line in script.split(b"\n")))
    if wanted.console:
        _write(printer, contents.console.pieces())


def _job_pairs(contents: Contents) -> Iterator[tuple[str, str]]:
    yield "job", printable(contents.head.job.name)
    yield "platform", printable(contents.head.job.platform)
    yield "uuid", str(contents.head.uuid)


def _summary_pairs(contents: Contents) -> Iterator[tuple[str, str]]:
    console, artifacts = contents.console, contents.artifacts
    yield "started", contents.end.started.isoformat()
    yield "finished", contents.end.finished.isoformat()
    yield "duration", words.since_start(contents.duration_ms * 10**6)
    yield "result", words.result(contents.end.result)
    yield "script", format_size(len(contents.head.job.script))
    yield "console", f"{words.count(console.count, 'line')}, {format_size(console.size)}"
    yield "artifacts", f"{artifacts.count}, {format_size(artifacts.size)}"


def _print_pairs(printer: Printer, pairs: Iterator[tuple[str, str]]) -> None:
    for key, value in pairs:
        printer.line(f"{key:<10} {value}")


def _write(printer: Printer, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        printer.write(piece)


# --- for programs --------------------------------------------------------------------------------------------------


def _line_json(line: ConsoleLine) -> bytes:
    return to_json(line_json(line)).encode("ascii")


class _JsonForm:
    """How entries of lists look to programs."""

    def __init__(self, *, extracted: bool) -> None:
        self._extracted = extracted

    def artifact(self, artifact: ArtifactRecord) -> bytes:
        """Return an object of the list of artifacts."""
        value: JsonObject = json_bytes("path", raw(artifact.path))
        value |= {"size": artifact.size, "sha256": artifact.sha256}
        if self._extracted:
            value["not_written"] = artifact.not_written
        return to_json(value).encode("ascii")


def _print_json(printer: Printer, source: _Source, contents: Contents, wanted: Wanted) -> None:
    head, end = contents.head, contents.end
    value: JsonObject = source.json() | {
        "job": json_text(head.job.name),
        "platform": json_text(head.job.platform),
        "uuid": str(head.uuid),
        "started": end.started.isoformat(),
        "finished": end.finished.isoformat(),
        "duration_ms": contents.duration_ms,
        "result": result_json(end.result),
        "text": words.result(end.result),
        "script_size": len(head.job.script),
        "console_lines": contents.console.count,
    }
    if wanted.script:
        value |= json_bytes("script", head.job.script)
    # lists of any length are written into the object piece by piece
    printer.write(to_json(value).removesuffix("}").encode("ascii"))
    if wanted.console:
        _print_list(printer, "console", contents.console.pieces())
    _print_list(printer, "artifacts", contents.artifacts.pieces())
    printer.write(b"}\n")


def _print_list(printer: Printer, key: str, pieces: Iterator[bytes]) -> None:
    printer.write(f', "{key}": ['.encode("ascii"))
    _write(printer, pieces)
    printer.write(b"]")
