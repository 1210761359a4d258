"""Of builder-db: verify-input-id, verify-data-dir and verify-cache-dir."""

from collections.abc import Iterator
from pathlib import Path

import click

from builder_web import verification
from builder_web.administration.options import datadir, reading
from builder_web.directory import DataDirectory
from builder_web.errors import Unsound


def _say(faults: Iterator[str]) -> None:
    count = 0
    for fault in faults:
        click.echo(fault)
        count += 1
    if count:
        raise Unsound(f"{count} faults, each in a line on standard output")


@click.command("verify-input-id")
@datadir
def input_id(datadir: Path) -> None:
    """Check that each build's input id is that of its opam-switch, build-environment and system-packages."""
    with reading(datadir) as connection:
        _say(verification.input_ids(connection))


@click.command("verify-data-dir")
@datadir
def data_dir(datadir: Path) -> None:
    """Check that all files are there, whole, and named by a build."""
    with reading(datadir) as connection:
        _say(verification.data_directory(connection, DataDirectory(datadir)))


@click.command("verify-cache-dir")
@datadir
def cache_dir(datadir: Path) -> None:
    """Check that each cached drawing belongs to an artifact that a build has."""
    with reading(datadir) as connection:
        _say(verification.cache_directory(connection, DataDirectory(datadir)))
