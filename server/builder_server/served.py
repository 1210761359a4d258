"""What belongs to a server: its directory, and its database where that is not in there.

A directory whose database is elsewhere says so in a file, so that no server begins with an empty one of its own in there.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from builder.errors import BuilderError
from builder.runtime.secrecy import exposure
from builder_server.names import DATABASE, ELSEWHERE

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there

CREDENTIAL = "database-password"
"""What systemd calls the password that it hands over (LoadCredential=)."""


class StartError(BuilderError):
    """The server can't start: its directory is not there, in use, or its address can't be had."""

    exit_code = 3


@frozen(kw_only=True)
class Served:
    """What an operator names: a directory, and the address of a database, which may hold a password."""

    directory: Path
    database: str | None = field(default=None, repr=False)
    password_file: Path | None = None

    def place(self) -> "Location | None":
        """Return where the database is if it is not in the directory. Raises StartError and StoreError."""
        if self.database is None:
            return None
        try:
            from builder.runtime.postgres import Location
        except ImportError as error:
            raise StartError(
                "--database needs psycopg, which is not installed: pip install 'builder[postgres]'"
            ) from error
        if self.password_file is not None:
            with suppress(OSError):  # which is said where it is read
                if what_to_do := exposure(self.password_file):
                    raise StartError(what_to_do)
        return Location(url=self.database, password_file=self.password_file or _credential())


def _credential() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, CREDENTIAL) if folder else None
    return path if path and path.exists() else None


def database_of(directory: Path, place: "Location | None") -> "Path | Location":
    """Return where the database of a directory is, and note it there. Raises StartError if it is another one.

    OSError is raised if it can't be noted.
    """
    elsewhere = directory / ELSEWHERE
    if place is None:
        if elsewhere.exists():
            raise StartError(
                f"the database of {directory} is in PostgreSQL, {elsewhere.read_text('utf-8').strip()}: name it with "
                f"--database, or remove {elsewhere} to begin with a new one"
            )
        return directory / DATABASE
    if (directory / DATABASE).exists():
        raise StartError(
            f"{directory} has a database of its own, {DATABASE}: leave --database out, or move it away to do without what "
            "it has"
        )
    elsewhere.write_text(f"{place}\n", "utf-8")
    return place
