"""Of builder-db: migrate."""

from pathlib import Path

import click

from builder_web.administration.options import datadir, writing
from builder_web.directory import DataDirectory
from builder_web.store import opening


@click.command("migrate")
@datadir
def command(datadir: Path) -> None:
    """Make the database of a data directory; one that is there already is left as it is.

    \b
    Example:
      builder-db migrate --datadir /var/lib/builder-web
    """
    directory = DataDirectory(datadir)
    directory.root.mkdir(parents=True, exist_ok=True)
    if directory.database.exists() and directory.database.stat().st_size:
        opening.check(directory.database)
        return
    with writing(datadir, new=True):
        pass
