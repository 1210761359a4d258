"""Of builder-db: extract-build."""

import sys
from pathlib import Path
from uuid import UUID

import click

from builder_web import stored
from builder_web.administration.options import datadir, reading
from builder_web.directory import DataDirectory
from builder_web.errors import Unknown
from builder_web.store import builds


@click.command("extract-build")
@datadir
@click.option(
    "--dest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; - is standard output.  [default: UUID.full]",
)
@click.argument("uuid", type=click.UUID)
def command(datadir: Path, dest: Path | None, uuid: UUID) -> None:
    """Write a build as the body of an upload.

    \b
    Example:
      builder-db extract-build --dest hello.full 4f0dd4c1-3b1e-4a7e-9a7c-0d2f2d1f4d11
    """
    with reading(datadir) as connection:
        found = builds.find(connection, str(uuid))
        if found is None:
            raise Unknown(f"there is no build {uuid}")
        uploaded = builds.uploaded(connection, found)
    pieces = stored.execution_pieces(DataDirectory(datadir), found, uploaded)
    if dest == Path("-"):
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    target = dest or Path(f"{uuid}.full")
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
