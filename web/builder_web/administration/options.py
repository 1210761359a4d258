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

datadir: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-d",
    "--datadir",
    envvar="BUILDER_WEB_DATADIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DATA_DIR,
    show_default=True,
    show_envvar=True,
    help="Data directory of builder-web.",
)


@contextmanager
def database(datadir: Path, *, new: bool = False) -> Iterator[sa.Connection]:
    """One transaction. Raises NotOurs, and StoreError for what the disk does."""
    try:
        with opening.transaction(DataDirectory(datadir).database, new=new) as connection:
            yield connection
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
