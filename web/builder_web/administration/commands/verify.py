"""Of builder-db: verify-input-id, verify-data-dir and verify-cache-dir."""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
import sqlalchemy as sa

from builder_web import verification
from builder_web.administration.options import datadir, reading, writing
from builder_web.directory import DataDirectory
from builder_web.errors import Unsound
from builder_web.verification import DataDirectoryCheck


def _say(datadir: Path, find: Callable[[sa.Connection], Iterable[str]]) -> None:
    """Print what is found now, and again while nobody can write: a build may have come or gone in between."""
    with reading(datadir) as connection:
        suspected = list(find(connection))
    if not suspected:
        return
    with writing(datadir) as connection:
        found = set(find(connection))
    faults = [fault for fault in suspected if fault in found]
    for fault in faults:
        click.echo(fault)
    if faults:
        raise Unsound(f"{len(faults)} fault{'' if len(faults) == 1 else 's'}, each in a line on standard output")


@click.command("verify-input-id")
@datadir
def input_id(datadir: Path) -> None:
    """Check that each build's input id is that of its opam-switch, build-environment and system-packages."""
    _say(datadir, verification.input_ids)


@click.command("verify-data-dir")
@datadir
def data_dir(datadir: Path) -> None:
    """Check that all files are there, whole, and named by a build."""
    _say(datadir, DataDirectoryCheck(DataDirectory(datadir)).faults)


@click.command("verify-cache-dir")
@datadir
def cache_dir(datadir: Path) -> None:
    """Check that each cached drawing belongs to an artifact that a build has."""
    _say(datadir, lambda connection: verification.cache_directory(connection, DataDirectory(datadir)))
