"""The commands of builder-server that look after its directory: they say how they are used, and hand over."""

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import evolve

from builder_server.names import COPIED
from builder_server.options import check_database
from builder_server.served import Served

F = TypeVar("F", bound=Callable[..., object])

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010")
"""The revisions of the database, the newest last: to each of them a way leads."""


_DIRECTORY = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="The server's directory, if it is not named before the command.",
)


def in_directory(command: F) -> F:
    """Give a command the option that names the directory, which may stand before the command as well."""

    @wraps(command)
    def given(served: Served, /, *arguments: Any, **options: Any) -> object:
        return command(served.directory, *arguments, **options)

    return click.pass_obj(_DIRECTORY(given))  # type: ignore[return-value]  # click's own


def of_server(command: F) -> F:
    """Give a command what belongs to the server that is named before it, or whose directory is named behind it."""

    @wraps(command)
    def given(served: Served, /, *arguments: Any, directory: Path | None, **options: Any) -> object:
        return command(evolve(served, directory=directory or served.directory), *arguments, **options)

    return click.pass_obj(_DIRECTORY(given))  # type: ignore[return-value]  # click's own


@click.command(
    epilog="""\b
Examples:
  builder-server --dir /var/lib/builder backup /backup/builder.tar
  builder-server backup --only-database - | ssh backup 'cat > builder.tar'"""
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--only-database", is_flag=True, help="Leave out what builds wrote: consoles, and records.")
@click.option(
    "--with-keys", is_flag=True, help="Put in the keys that builds are signed with: keep such a FILE from others."
)
@of_server
def backup(served: Served, file: Path, *, only_database: bool, with_keys: bool) -> None:
    """Write schedule, queues, history and builds to FILE, a tar archive; '-' is standard output.

    The server may run meanwhile. The archive is of the moment at which the command began; a file that is there is
    replaced once the new one is whole. It holds scripts and consoles, so only its owner can read it. The keys that sign what
    builds were stay out: a server that is restored makes a new one. A database in PostgreSQL is saved with pg_dump.
    """
    from builder_server import backups

    backups.check_inside(served)
    backups.write(served.directory, file, only_database=only_database, with_keys=with_keys)
    if str(file) != "-":
        click.echo(f"wrote {file}")


@click.command(epilog="\b\nExample:\n  builder-server --dir /var/lib/builder restore /backup/builder.tar")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@of_server
def restore(served: Served, file: Path) -> None:
    """Bring back what 'backup' has written to FILE, or to standard input with '-'.

    The directory must have no database, so no server may run in it. A restore that was interrupted is done again. What
    ran when the backup was made goes back to its queue.
    """
    from builder_server import backups, keyring, offline

    backups.check_inside(served)
    offline.restore(served.directory, file)
    click.echo(f"restored to {served.directory}")
    if not keyring.files(served.directory):
        click.echo(
            "the keys that sign builds are not in it: bring them back, as builder.keys there, or the server makes a new one, and "
            "who verifies needs what 'keys public' prints"
        )


@click.command(
    "import",
    epilog="""\b
Examples:
  builder-server --dir /var/lib/builder import
  builder-server --dir /var/lib/builder import --upload""",
)
@click.option("--upload", is_flag=True, help="Have the server upload them, when it is started with --upload.")
@of_server
def import_(served: Served, *, upload: bool) -> None:
    """Take over records of builds that the server does not know, while no server runs.

    It looks for DIR/JOB/UUID/full, which the original keeps where it uploads nothing, or where that failed. They get into
    the history with their artifacts and consoles; what is known already stays as it is, but that --upload has also those uploaded
    that were taken over without it, and a record that is damaged is named. The original's state file is imported first, if the database is new.
    """
    import trio

    from builder_server import offline

    found = trio.run(partial(offline.import_left, served.directory, served.place(), served.name, upload=upload))
    uploads = f"; known ones that are to be uploaded now: {found.uploads}" if found.uploads else ""
    click.echo(f"imported {found.new}, known already {found.known}, damaged {found.damaged}{uploads}")


@click.command(
    epilog="""\b
Examples:
  builder-server --dir /var/lib/builder migrate --to 0003
  builder-server --dir /var/lib/builder migrate"""
)
@click.option(
    "--to",
    type=click.Choice(REVISIONS),
    default=REVISIONS[-1],
    show_default=True,
    help="The revision: an earlier one is what an earlier release knows, and what only later ones know is lost.",
)
@of_server
def migrate(served: Served, to: str) -> None:
    """Bring the database to another revision, while no server runs.

    A server brings it to the newest one by itself when it starts. Make a backup before.
    """
    from builder_server import offline

    offline.migrate(served.directory, served.place(), to)
    click.echo(f"the database is at revision {to}")


@click.command(
    epilog="""\b
Examples:
  builder-server --dir /var/lib/builder copy-database --to postgresql://builder@db.example.org/builder
  builder-server --dir /var/lib/builder copy-database --from postgresql://builder@db.example.org/builder"""
)
@click.option(
    "--to", "target", callback=check_database, metavar="URL", help="Copy builder.sqlite3 to this PostgreSQL database."
)
@click.option(
    "--from", "source", callback=check_database, metavar="URL", help="Copy this PostgreSQL database to builder.sqlite3."
)
@of_server
def copy_database(served: Served, *, target: str | None, source: str | None) -> None:
    """Move schedule, queues and history to PostgreSQL, or back, while no server runs.

    The target must be empty, and the source at the newest revision. What was written is compared with what was read, and is
    all of it in the end, or nothing: what was interrupted is begun anew. What is copied stays, builder.sqlite3 as
    builder.sqlite3.copied, and so do consoles and records. In PostgreSQL the server is called as --name says, before the command, or
    as its machine is. The password is found as that of --database is.
    """
    from builder.model import printable
    from builder_server import offline

    if (target is None) == (source is None):
        raise click.UsageError("give either --to or --from")
    place = evolve(served, database=target or source).place()
    assert place, "it has an address"
    copied = offline.move(served.directory, place, served.name, back=target is None)
    if target is not None:
        next_steps = f"to {place}: start the server with --database; {COPIED} may go once all is well"
    else:
        next_steps = f"from {place}: start the server without --database; what is there may go once all is well"
    elsewhere = f"; consoles and artifacts of {', '.join(map(printable, copied.others))} are in their directories alone"
    click.echo(f"copied {copied.rows} rows {next_steps}{elsewhere if copied.others else ''}")


@click.command(
    "forget-server",
    epilog="""\b
Examples:
  builder-server --database postgresql://builder@db.example.org/builder forget-server
  builder-server --database postgresql://builder@db.example.org/builder forget-server b""",
)
@click.argument("name", required=False)
@of_server
def forget_server(served: Served, *, name: str | None) -> None:
    """Give up what the server NAME had, which never comes back; without NAME, list those that are gone.

    Other servers may work meanwhile. Its builds stay in the history until --keep removes them; consoles and artifacts that were on its
    disk alone are gone, and what was still to be uploaded or signed is not. What ran there is with another server anyway.
    """
    from builder.model import printable
    from builder_server.served import StartError
    from builder_server.store import Store

    place = served.place()
    if place is None:
        raise StartError("forget-server is for servers that share a --database: name it before the command")
    if name is None:
        absent = Store.absent(place)
        for each, count in absent.items():
            click.echo(f"{printable(each)} does not work now; builds whose files it has: {count}")
        if not absent:
            click.echo("no server is gone that has files of builds", err=True)
        return
    if not (count := Store.forget_server(place, name)):
        raise StartError(
            f"no server called {printable(name)} has files of builds: without NAME those are listed that do"
        )
    click.echo(f"forgot the server {printable(name)}; builds whose files it had: {count}")
