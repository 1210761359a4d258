"""Two builds beside each other: their scripts, their artifacts, and where those differ."""

import difflib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from attrs import evolve, field, frozen

from builder.errors import BuilderError
from builder.execution import ArtifactData, ArtifactsReader, ArtifactStart
from builder.extension.builds import ArtifactEntry, ArtifactsPiece, BuildShown, FetchArtifacts, ScriptShown, ShowScript
from builder.messages import KIB, MIB
from builder.model import printable, raw, text

from . import past
from .errors import Refused
from .output import JsonObject, Printer, json_text

if TYPE_CHECKING:
    from .remote import Remote

WHAT = "builds to compare"
"""What a server of the classic protocol has not."""

NOT_THE_SAME = 6
"""Exit status where two builds are not the same."""

TEXTS = frozenset({"build-environment", "opam-switch", "system-packages"})
"""Names of artifacts that say what a build was made of: their lines are compared."""

MAX_TEXT = MIB
"""Bytes of a text whose lines are compared."""

_BLOCK = 64 * KIB


@frozen(kw_only=True)
class Differing:
    """A path at which the artifacts of two builds are not the same. One of the two may have none there.

    ``at`` is the first byte that is another, counted from 0; None where the contents are not there to be looked at.
    ``lines`` are the differences of a text.
    """

    path: str
    one: ArtifactEntry | None
    other: ArtifactEntry | None
    at: int | None = None
    lines: tuple[str, ...] = ()


@frozen(kw_only=True)
class Comparison:
    """What two builds have in common."""

    one: BuildShown
    other: BuildShown
    script: tuple[str, ...]
    same: int
    differing: tuple[Differing, ...] = field(default=())

    @property
    def are_artifacts_the_same(self) -> bool:
        """Whether both have left the same."""
        return not self.differing


def compare(remote: "Remote", one: BuildShown, other: BuildShown) -> Comparison:
    """Compare two builds that have ended. Raises Refused, TooOld, and BuilderError where there is no room to look into them."""
    for each in (one, other):
        if each.entry.finished is None:
            raise Refused(f"{past.uuid_of(each)} still runs: compare it when it has ended")
        if each.entry.artifacts is None:
            raise Refused(
                f"the server has not recorded what {past.uuid_of(each)} left: it was lost, or is of an earlier release; "
                f"'fetch' writes what there is"
            )
    uuids = past.uuid_of(one), past.uuid_of(other)
    same, differing = _paths(*(past.artifacts(remote, uuid, what=WHAT) for uuid in uuids))
    if one.has_record and other.has_record:
        try:
            differing = _look_into(remote, uuids, differing)
        except OSError as error:
            where = printable(tempfile.gettempdir())
            raise BuilderError(
                f"can't keep artifacts in {where}: {error.strerror}; set TMPDIR to where there is room"
            ) from error
    scripts = (_script(remote, uuid) for uuid in uuids)
    return Comparison(one=one, other=other, script=_lines("script", *scripts), same=same, differing=tuple(differing))


def _paths(one: Iterator[ArtifactEntry], other: Iterator[ArtifactEntry]) -> tuple[int, list[Differing]]:
    """Return how many artifacts are the same, and the others; both are in the order of the bytes of their paths."""
    same = 0
    differing: list[Differing] = []
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and raw(left.path) < raw(right.path)):
            assert left is not None
            differing.append(Differing(path=left.path, one=left, other=None))
            left = next(one, None)
        elif left is None or raw(right.path) < raw(left.path):
            differing.append(Differing(path=right.path, one=None, other=right))
            right = next(other, None)
        else:
            if (left.size, left.sha256) == (right.size, right.sha256):
                same += 1
            else:
                differing.append(Differing(path=left.path, one=left, other=right))
            left, right = next(one, None), next(other, None)
    return same, differing


def _script(remote: "Remote", uuid: UUID) -> bytes:
    (reply,) = remote.request(ShowScript(uuid=uuid), what=WHAT)
    assert isinstance(reply, ScriptShown), "the order of messages sees to it"
    return reply.script


def _look_into(remote: "Remote", uuids: tuple[UUID, UUID], found: list[Differing]) -> list[Differing]:
    """Return them with where they differ. Those of the first build are kept on the disk meanwhile."""
    numbers = {each.path: str(number) for number, each in enumerate(found) if each.one and each.other}
    if not numbers:
        return found
    with tempfile.TemporaryDirectory(prefix="builder-compare-") as directory:
        kept = Path(directory)
        for side, uuid in zip(("one", "other"), uuids, strict=True):
            (kept / side).mkdir()
            _keep(_contents(remote, uuid), kept / side, numbers)
        return [
            _located(each, kept / "one" / numbers[each.path], kept / "other" / numbers[each.path])
            if each.path in numbers
            else each
            for each in found
        ]


def _keep(contents: Iterator[object], directory: Path, numbers: dict[str, str]) -> None:
    """Write the artifacts that have a number into files called so."""
    with ExitStack() as stack:
        file: BinaryIO | None = None
        for event in contents:
            match event:
                case ArtifactStart(path=path):
                    stack.close()  # there may be more of them than files may be open
                    number = numbers.get(path)
                    file = None if number is None else stack.enter_context((directory / number).open("wb"))
                case ArtifactData(data=data) if file:
                    file.write(data)


def _contents(remote: "Remote", uuid: UUID) -> Iterator[object]:
    reader = ArtifactsReader()
    for reply in remote.stream(FetchArtifacts(uuid=uuid), what=WHAT):
        assert isinstance(reply, ArtifactsPiece), "the order of messages sees to it"
        yield from reader.feed(reply.data)
    reader.finish()


def _located(found: Differing, one: Path, other: Path) -> Differing:
    lines: tuple[str, ...] = ()
    is_text = found.path.rpartition("/")[2] in TEXTS and max(one.stat().st_size, other.stat().st_size) <= MAX_TEXT
    if is_text:
        lines = _lines(found.path, one.read_bytes(), other.read_bytes())
    return evolve(found, at=first_difference(one, other), lines=lines)


def first_difference(one: Path, other: Path) -> int | None:
    """Return the first byte at which two files differ, counted from 0; where one of them ends before, that."""
    offset = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            left, right = first.read(_BLOCK), second.read(_BLOCK)
            if left != right:
                pairs = zip(left, right, strict=False)
                return offset + next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
            if not left:
                return None
            offset += len(left)


def _lines(name: str, one: bytes, other: bytes) -> tuple[str, ...]:
    """Return what two texts do not have in common, as a unified diff."""
    left, right = (text(each).splitlines() for each in (one, other))
    return tuple(difflib.unified_diff(left, right, f"one/{name}", f"other/{name}", lineterm=""))


# --- for people ----------------------------------------------------------------------------------------------------


def describe(found: Differing) -> str:
    """Return an artifact that differs, and where."""
    path = printable(found.path)
    if found.other is None or found.one is None:
        return f"{path} is only in the {'other' if found.one is None else 'one'}"
    sizes = (
        f"{found.one.size} bytes"
        if found.one.size == found.other.size
        else f"{found.one.size} and {found.other.size} bytes"
    )
    return f"{path} differs ({sizes})" if found.at is None else f"{path} differs at byte {found.at} ({sizes})"


def print_comparison(printer: Printer, found: Comparison) -> None:
    """Print all that differs."""
    for side, shown in (("one", found.one), ("other", found.other)):
        entry = shown.entry
        printer.line(
            f"{side + ':':<6} {entry.uuid} {printable(entry.name)} on {printable(entry.platform)}, {past.outcome(entry)}"
        )
    printer.line(f"script: {'differs' if found.script else 'the same'}")
    printer.line(f"artifacts: {found.same} the same, {len(found.differing)} not")
    for each in found.differing:
        printer.line(f"  {describe(each)}")
    for line in (*found.script, *(line for each in found.differing for line in each.lines)):
        printer.foreign_line("", raw(line))


def comparison_json(found: Comparison) -> JsonObject:
    """Return a comparison."""
    return {
        "one": str(found.one.entry.uuid),
        "other": str(found.other.entry.uuid),
        "same_script": not found.script,
        "same_artifacts": found.are_artifacts_the_same,
        "same": found.same,
        "differing": [
            {
                "path": json_text(each.path),
                "one": each.one and {"size": each.one.size, "sha256": each.one.sha256.hex()},
                "other": each.other and {"size": each.other.size, "sha256": each.other.sha256.hex()},
                "at": each.at,
            }
            for each in found.differing
        ],
    }
