"""What belongs to a server: its directory, which one program holds at a time, and its database where that is not in there.

A directory whose database is elsewhere says so in a file, so that no server begins with an empty one of its own in there,
and with which name, so that it deals with the files of no other one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from typing import TYPE_CHECKING

from attrs import field, frozen

from builder.errors import BuilderError
from builder.runtime.files import lock
from builder.runtime.secrecy import exposure
from builder_server.names import DATABASE, ELSEWHERE, LOCK, ONLY_SERVER

if TYPE_CHECKING:
    from builder.runtime.postgres import Location  # its library need not be there

NOT_SHARED = "--name and --advertise are for servers that share a --database: leave them out"

CREDENTIAL = "database-password"
"""What systemd calls the password that it hands over (LoadCredential=)."""


class StartError(BuilderError):
    """The server can't start: its directory is not there, in use, or its address can't be had."""

    exit_code = 3


@frozen(kw_only=True)
class Served:
    """What an operator names: a directory, and the address of a database, which may hold a password.

    ``name`` is what its server is called among others on that.
    """

    directory: Path
    database: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    name: str | None = None

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


def is_elsewhere(directory: Path) -> bool:
    """Return whether a directory says that its database is elsewhere; one that has a database does not, whatever lies there."""
    return (directory / ELSEWHERE).exists() and not (directory / DATABASE).exists()


def database_of(directory: Path, place: "Location | None") -> "Path | Location":
    """Return where the database of a directory is. Raises StartError if it is another one."""
    if place is None:
        if is_elsewhere(directory):
            raise StartError(
                f"the database of {directory} is in PostgreSQL, {_noted(directory)[0]}: name it with --database, or remove "
                f"{directory / ELSEWHERE} to begin with a new one"
            )
        return directory / DATABASE
    if (directory / DATABASE).exists():
        raise StartError(
            f"{directory} has a database of its own, {DATABASE}: leave --database out, or move it away to do without what "
            "it has"
        )
    return place


def check_owner(directory: Path, refused: type[BuilderError] = StartError) -> None:
    """See that what root writes is its owner's, too. Raises what is ``refused``."""
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError:
        return
    if os.geteuid() == 0 != owner:
        raise refused(f"{directory} belongs to user {owner}: run this as that user, with runuser -u NAME --")


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises StartError if another server does.

    Whoever can open a file can lock it: so this one is closed to other users, also where the directory is not.
    """
    try:
        file = os.fdopen(os.open(data_dir / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w")
    except OSError as error:
        raise StartError(
            f"can't use the data directory {data_dir}: {error.strerror}; create it, or name another with --dir"
        ) from error
    with file:
        try:
            os.fchmod(file.fileno(), 0o600)  # an earlier one may be open to all
            taken = lock(file.fileno())
        except OSError as error:
            raise StartError(f"can't lock {data_dir}: {error.strerror}") from error
        if not taken:
            raise StartError(f"another server uses {data_dir}: stop it, or name another directory with --dir")
        yield


def place_of(directory: Path, place: "Location | None", given: str | None) -> "tuple[Path | Location, str]":
    """Return where the database of a directory is, and what its server is called there. ``given`` is what its operator says.

    Raises StartError where it is not that. Both are to be noted in the directory once the database has let the server in.
    """
    return database_of(directory, place), ONLY_SERVER if place is None else choose_name(directory, given)


def note_elsewhere(directory: Path, place: "Location", name: str) -> None:
    """Have a directory say where its database is, and what its server is called there: for the files are that one's.

    Raises OSError.
    """
    (directory / ELSEWHERE).write_text(f"{place}\n{name}\n", "utf-8")


def choose_name(directory: Path, given: str | None) -> str:
    """Return what the server of a directory is called among others. Raises StartError, as ``place_of``."""
    known = _noted(directory)[1:]
    name = given or (known[0] if known else node() or "localhost")
    if known and known != [name]:
        raise StartError(
            f"{directory} has what the server called {known[0]} has built: leave --name out, or name another --dir"
        )
    return name


def _noted(directory: Path) -> list[str]:
    """Return the database of a directory, if it is elsewhere, and what its server is called there."""
    try:
        return (directory / ELSEWHERE).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
