"""Holding what was fetched against what a server has signed of it, without the server."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from attrs import frozen

from builder.errors import BuilderError, ProtocolError
from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd, ExecutionHead, read_execution
from builder.model import printable, raw, text
from builder.provenance import FILE_NAME, MAX_ENVELOPE, InvalidProvenance
from builder.provenance.envelope import Envelope
from builder.provenance.keys import MAX_FILE, InvalidKey, PublicKey, read_public
from builder.provenance.statement import Statement
from builder.provenance.verification import Deviation, Verdict, Verified, compare, verify
from builder.reasons import reason_of

from . import words
from .output import JsonObject, Printer, json_bytes, json_text

RECORD = "full"
"""The record of a build, beside whose envelope it lies on the server."""

_OF_SERVER = frozenset({"console", RECORD, FILE_NAME})
"""What a server keeps in the directory of a build. With anything else in it, a directory is one of artifacts."""

_NO_FILE = b""
"""Stands for the hash of what is no file, which no artifact has."""


class FileUnreadable(BuilderError):
    """A file can't be opened, or read to its end."""

    exit_code: ClassVar[int] = 2


class NotOneProvenance(BuilderError):
    """There is no provenance where one is named, or there are several."""

    exit_code: ClassVar[int] = 2


class NotVerified(BuilderError):
    """None of the keys says that the statement is to be believed."""

    exit_code: ClassVar[int] = 5


class Differs(BuilderError):
    """Artifacts, or a record, are not what was signed; each has been named."""


@frozen(kw_only=True)
class Examined:
    """What is to be verified: artifacts as SHA-256 by their paths, and what of a record is not as it was signed."""

    artifacts: dict[str, bytes]
    wrong: tuple[str, ...] = ()


def check(named: str, artifacts: str | None, keys: Sequence[str], printer: Printer, *, as_json: bool) -> None:
    """Verify, and print what was found. ``named`` is an envelope, or a directory with one.

    Raises FileUnreadable, NotOneProvenance, InvalidProvenance, InvalidKey, NotVerified and Differs.
    """
    known = [key for path in keys for key in _keys(path)]
    if artifacts is not None and artifacts.endswith(FILE_NAME):  # as *.provenance.json may become
        raise NotOneProvenance(f"{printable(artifacts)} is provenance, too: verify that of one build at a time")
    envelope_path = _envelope(named)
    where = printable(envelope_path)
    try:
        envelope = Envelope.decode(_read(envelope_path, MAX_ENVELOPE))
        statement = Statement.decode(envelope)
    except InvalidProvenance as error:
        raise InvalidProvenance(f"{where}: {error}") from error
    verified = verify(envelope, statement, known)
    if verified.verdict is not Verdict.VALID:
        if as_json:
            printer.json({"signature": verified.verdict.value, "keys": list(verified.keys)})
        raise NotVerified(f"{where}: {_why(verified, known)}")
    there = _examined(artifacts if artifacts is not None else str(Path(envelope_path).parent))
    found = _look(there, envelope_path, statement)
    differences = compare(statement, found.artifacts)
    if as_json:
        printer.json(_json(statement, verified, found, differences))
    else:
        _print(printer, statement, verified, found, differences)
    if differences or found.wrong:
        raise Differs(f"{printable(there)} is not what was signed")


def _why(verified: Verified, known: Sequence[PublicKey]) -> str:
    ids = ", ".join(printable(key[:100]) for key in verified.keys)
    match verified.verdict:
        case Verdict.INVALID:
            return f"it was changed: the signature of key {ids} does not fit"
        case Verdict.OUTSIDE:
            periods = ", ".join(_period(key) for key in known if key.id in verified.keys)
            return f"it was signed with key {ids} outside of the validity of that: {periods}"
    return f"it is signed with none of the keys given, but with {ids}"


def _period(key: PublicKey) -> str:
    begin, end = key.valid_from, key.valid_until
    return f"from {begin.isoformat() if begin else 'ever'} until {end.isoformat() if end else 'ever'}"


def _envelope(named: str) -> str:
    """Return the one envelope of a directory, or what is named."""
    try:
        found = sorted(name for name in os.listdir(named) if name.endswith(FILE_NAME))  # noqa: PTH208  as it was given
    except OSError:  # it is no directory; whether it can be read shows when it is
        return named
    if not found:
        raise NotOneProvenance(
            f"there is no provenance in {printable(named)}: name the file, which 'builder-client fetch' writes as UUID.{FILE_NAME}"
        )
    if len(found) > 1:
        raise NotOneProvenance(
            f"there is the provenance of {len(found)} builds in {printable(named)}: name one of the files, such as {printable(found[0])}"
        )
    return str(Path(named, found[0]))


def _examined(there: str) -> str:
    """Return what is held against the statement: the record where a server has it, else what is named."""
    try:
        names = set(os.listdir(there))  # noqa: PTH208  as it was given
    except OSError:  # as above
        return there
    return str(Path(there, RECORD)) if RECORD in names and names <= _OF_SERVER else there


def _keys(path: str) -> list[PublicKey]:
    try:
        return read_public(_read(path, MAX_FILE).decode("ascii", "replace"))
    except InvalidKey as error:
        raise InvalidKey(f"{printable(path)}: {error}") from error


def _read(path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  the path as it was given
            return file.read(most + 1)
    except OSError as error:
        raise FileUnreadable(f"can't read {printable(path)}: {reason_of(error)}") from error


# --- what is there -------------------------------------------------------------------------------------------------


def _look(path: str, envelope: str, statement: Statement) -> Examined:
    try:
        if Path(path).is_dir():
            return Examined(artifacts=dict(_directory(path, os.stat(envelope))))  # noqa: PTH116  likewise
        with open(path, "rb") as file:  # noqa: PTH123  likewise
            return _record(file, statement)
    except OSError as error:
        raise FileUnreadable(f"can't read {printable(path)}: {reason_of(error)}") from error
    except ProtocolError as error:
        raise ProtocolError(f"{printable(path)} is damaged or no execution: {error}") from error


def _directory(root: str, envelope: os.stat_result) -> Iterator[tuple[str, bytes]]:
    """Yield path and hash of all files below a directory but the envelope; what is no file has no hash."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(os.fsencode(root), onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118  bytes
        for name in [*names, *links]:
            path = os.path.join(folder, name)  # noqa: PTH118  bytes
            found = os.lstat(path)
            if os.path.samestat(found, envelope):
                continue
            relative = text(os.path.relpath(path, os.fsencode(root)))
            yield relative, _hash(path) if stat.S_ISREG(found.st_mode) else _NO_FILE


def _hash(path: bytes) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _record(file: BinaryIO, statement: Statement) -> Examined:
    """Read a record, and hold what else it says against the statement. Raises ProtocolError."""
    artifacts: dict[str, bytes] = {}
    wrong: list[str] = []
    current, digest = "", hashlib.sha256()

    def end() -> None:
        if current:
            artifacts[current] = _NO_FILE if current in artifacts else digest.digest()

    for event in read_execution(file):
        match event:
            case ExecutionHead(job=job, uuid=uuid):
                script = hashlib.sha256(job.script).hexdigest()
                wrong += ["uuid and job"] * (not statement.is_about(uuid, job.name))
                wrong += ["platform"] * (not statement.is_on(job.platform))
                wrong += ["script"] * (script != statement.script)
            case ExecutionEnd(started=started, finished=finished, result=result):
                wrong += ["times"] * ((started, finished) != (statement.started, statement.finished))
                wrong += ["result"] * (result != statement.result)
            case ArtifactStart(path=path):
                end()
                current, digest = path, hashlib.sha256()
            case ArtifactData(data=data):
                digest.update(data)
    end()
    return Examined(artifacts=artifacts, wrong=tuple(wrong))


# --- what is said --------------------------------------------------------------------------------------------------


def _print(printer: Printer, statement: Statement, verified: Verified, found: Examined, differences: Deviation) -> None:
    pairs = [
        ("signature", f"valid, of key {', '.join(verified.keys)}"),
        ("builder", printable(statement.builder_id)),
        ("job", printable(statement.job)),
        ("platform", printable(statement.platform)),
        ("uuid", str(statement.uuid)),
        ("script", statement.script),
        ("started", statement.started.isoformat()),
        ("finished", statement.finished.isoformat()),
        ("result", words.result(statement.result) if statement.result else "-"),
        ("artifacts", _summary(found, differences)),
        *(("record", f"not the one that was signed: {what}") for what in found.wrong),
        *(("differs", printable(path)) for path in differences.changed),
        *(("missing", printable(path)) for path in differences.missing),
        *(("extra", printable(path)) for path in differences.extra),
    ]
    for name, value in pairs:
        printer.line(f"{name:<10} {value}")


def _summary(found: Examined, differences: Deviation) -> str:
    if differences.others:
        return "not those that were signed; there are too many to say which of them differ"
    if not differences:
        return f"{words.count(len(found.artifacts), 'artifact')}, all as they were signed"
    counts = {"differ": differences.changed, "missing": differences.missing, "extra": differences.extra}
    return ", ".join(f"{len(paths)} {what}" for what, paths in counts.items() if paths)


def _json(statement: Statement, verified: Verified, found: Examined, differences: Deviation) -> JsonObject:
    return {
        "signature": verified.verdict.value,
        "keys": list(verified.keys),
        "builder": json_text(statement.builder_id),
        "job": json_text(statement.job),
        "platform": json_text(statement.platform),
        "uuid": str(statement.uuid),
        "started": statement.started.isoformat(),
        "finished": statement.finished.isoformat(),
        "artifacts": len(found.artifacts),
        "as_signed": not (differences or found.wrong),
        "record": list(found.wrong),
        "differs": [json_bytes("path", raw(path)) for path in differences.changed],
        "missing": [json_bytes("path", raw(path)) for path in differences.missing],
        "extra": [json_bytes("path", raw(path)) for path in differences.extra],
    }
