"""What the artifacts of a build say of it and of its job."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from builder_web.binaries.elf import Damaged
from builder_web.binaries.solo5 import read_solo5
from builder_web.errors import UnreadableOpamFile
from builder_web.opam.summary import summarize
from builder_web.opam.switch import read_switch, switch_path
from builder_web.opam.syntax import MAX_SIZE
from builder_web.store.jobs import DESCRIPTION, SECTION, SYNOPSIS
from builder_web.store.records import StoredArtifact

_INPUTS = ("opam-switch", "build-environment", "system-packages")


class Facts:
    """Reads artifacts where ``content`` says that they are."""

    def __init__(self, artifacts: Iterable[StoredArtifact], content: Callable[[bytes], Path]) -> None:
        self._artifacts = {file.path: file for file in artifacts}
        self._content = content

    def input_id(self) -> bytes | None:
        """Return what builds of the same input have in common; None unless all of the input is there."""
        found = [self._artifacts.get(path) for path in _INPUTS]
        digests = [file.digest for file in found if file is not None]
        return hashlib.sha256(b"".join(digests)).digest() if len(digests) == len(_INPUTS) else None

    def tags(self) -> dict[str, str]:
        """Return what the opam-switch says of the job; nothing if it says nothing. Raises OSError."""
        path = switch_path(self._artifacts)
        if path is None:
            return {}
        try:
            switch = read_switch(self._read(self._artifacts[path], MAX_SIZE + 1))
        except UnreadableOpamFile:
            return {}
        summary = summarize(switch)
        if summary is None:
            return {}
        said = {SECTION: summary.section, SYNOPSIS: summary.synopsis, DESCRIPTION: summary.description}
        return {tag: value for tag, value in said.items() if value is not None}

    def _read(self, file: StoredArtifact, limit: int) -> bytes:
        with self._content(file.digest).open("rb") as opened:
            return opened.read(limit)

    def solo5(self, main_binary: StoredArtifact) -> str:
        """Return what the main binary says of itself, as JSON: see the table ``binary``. Raises OSError."""
        with self._content(main_binary.digest).open("rb") as file:
            found = read_solo5(file)
        if found is None:
            return "{}"
        return json.dumps({"damage": found.reason} if isinstance(found, Damaged) else found.to_json())
