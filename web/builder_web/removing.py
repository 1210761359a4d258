"""Builds are removed: rows and files, in steps small enough that uploads do not wait long for the database."""

from collections.abc import Sequence

import sqlalchemy as sa

from builder.runtime import files
from builder_web.directory import DataDirectory
from builder_web.store import removal
from builder_web.store.records import Build

AT_ONCE = 100
"""Builds of one step."""


def parts(gone: Sequence[Build]) -> list[Sequence[Build]]:
    """Return builds in parts that one step removes."""
    return [gone[start : start + AT_ONCE] for start in range(0, len(gone), AT_ONCE)]


def remove_files(connection: sa.Connection, directory: DataDirectory) -> None:
    """Remove the files that no row names any more. Raises OSError; it may be done again.

    It is a step of its own, after the one that removed the rows is on the disk: the other way round, rows could name files
    that are gone. A step that writes, so that no upload places one of them meanwhile.
    """
    for path in removal.pending(connection):
        found = directory.below(path)
        files.remove_tree(found)
        if found.parent != directory.root:
            files.remove_if_empty(found.parent)
    removal.forget_pending(connection)
