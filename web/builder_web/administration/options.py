"""Options that all commands have, and how they use the data directory."""

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from builder.errors import BuilderError
from builder.runtime.database import StoreError
from builder_web.directory import DataDirectory
from builder_web.store import opening

_DATA_DIR = "/var/db/builder-web" if platform.system() == "FreeBSD" else "/var/lib/builder-web"

datadir_option = click.Option(
    ["-d", "--datadir"],
    envvar="BUILDER_WEB_DATADIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DATA_DIR,
    show_default=True,
    show_envvar=True,
    help="Data directory of builder-web.",
)


def datadir(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --datadir."""
    parameters = vars(command).setdefault("__click_params__", [])  # where click's own decorators put theirs
    parameters.append(datadir_option)
    return command


@contextmanager
def writing(datadir: Path, *, new: bool = False) -> Iterator[sa.Connection]:
    """One transaction that writes; with ``new`` it makes the database. Raises NotOurs, and StoreError for what the disk does."""
    with _told(datadir), opening.writing(DataDirectory(datadir).database, new=new) as connection:
        yield connection


@contextmanager
def reading(datadir: Path) -> Iterator[sa.Connection]:
    """One transaction that changes nothing, and holds nobody up. Raises NotOurs, and StoreError for what the disk does."""
    with _told(datadir), opening.reading(DataDirectory(datadir).database) as connection:
        yield connection


@contextmanager
def _told(datadir: Path) -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(f"the database in {datadir}: {getattr(error, 'orig', None) or error}") from error


def read_password() -> bytes:
    """Return the password that stands on standard input; a terminal is asked for it, twice."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)).encode()
    password = sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    if not password:
        raise BuilderError("there is no password on standard input; give one: echo -n PASSWORD | builder-db …")
    return password
