"""The files of builds that were removed from the database."""

import shutil
from contextlib import suppress

from builder_web.directory import DataDirectory
from builder_web.store.removal import Removed


def remove_files(directory: DataDirectory, removed: Removed) -> None:
    """Remove the files that no row names any more. Raises OSError; it may be done again.

    Whoever calls holds the database's lock for writing, so that no upload places one of them meanwhile.
    """
    for build in removed.builds:
        folder = directory.below(build.script).parent
        if folder != directory.root:
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
            with suppress(OSError):  # others are in it
                folder.parent.rmdir()
    for digest in removed.contents:
        directory.content(digest).unlink(missing_ok=True)
