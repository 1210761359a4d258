"""Of builder-db: user-… and access-…."""

from pathlib import Path

import click

from builder.errors import InvalidOptions
from builder_web import access
from builder_web.administration.options import datadir, read_password, reading, writing
from builder_web.store import users
from builder_web.store.records import Password

_COSTS = (
    click.option("--scrypt-n", type=click.IntRange(2), default=access.SCRYPT_N, show_default=True, help="Cost of scrypt."),
    click.option("--scrypt-r", type=click.IntRange(1), default=access.SCRYPT_R, show_default=True, help="Block size of scrypt."),
    click.option("--scrypt-p", type=click.IntRange(1), default=access.SCRYPT_P, show_default=True, help="Parallelism of scrypt."),
)  # fmt: skip


def _hash(password: bytes, n: int, r: int, p: int) -> Password:
    try:
        return access.new_password(password, n=n, r=r, p=p)
    except (ValueError, MemoryError, OverflowError) as error:
        raise InvalidOptions(f"scrypt can't have these costs: {error}; leave them out for good ones") from error


@click.command("user-add")
@datadir
@click.option("--unrestricted", is_flag=True, help="Let the user upload builds of any job, also of new ones.")
@_COSTS[0]
@_COSTS[1]
@_COSTS[2]
@click.argument("username")
def add(datadir: Path, *, unrestricted: bool, scrypt_n: int, scrypt_r: int, scrypt_p: int, username: str) -> None:
    """Add a user, whose password is read from standard input.

    A user that is not unrestricted may upload builds of the jobs that access-add names.

    \b
    Example:
      echo -n secret | builder-db user-add --unrestricted uploader
    """
    if not username or ":" in username:
        raise InvalidOptions("a user's name must not be empty, nor hold a colon")
    password = _hash(read_password(), scrypt_n, scrypt_r, scrypt_p)
    with writing(datadir) as connection:
        users.add(connection, username, password, restricted=not unrestricted)


@click.command("user-update")
@datadir
@click.option(
    "--unrestricted/--restricted", default=None, help="Change what the user may upload.  [default: as it was]"
)
@_COSTS[0]
@_COSTS[1]
@_COSTS[2]
@click.argument("username")
def update(
    datadir: Path, *, unrestricted: bool | None, scrypt_n: int, scrypt_r: int, scrypt_p: int, username: str
) -> None:
    """Give a user another password, which is read from standard input.

    \b
    Example:
      echo -n secret | builder-db user-update uploader
    """
    password = _hash(read_password(), scrypt_n, scrypt_r, scrypt_p)
    with writing(datadir) as connection:
        users.update(connection, username, password, restricted=None if unrestricted is None else not unrestricted)


@click.command("user-remove")
@datadir
@click.argument("username")
def remove(datadir: Path, username: str) -> None:
    """Remove a user that has uploaded nothing."""
    with writing(datadir) as connection:
        users.remove(connection, username)


@click.command("user-disable")
@datadir
@click.argument("username")
def disable(datadir: Path, username: str) -> None:
    """Lock a user out: no password fits, and nothing is on its access list that it may upload.

    user-update gives it a password again.
    """
    # no password has an empty hash
    password = Password(hash=b"", salt=b"", n=access.SCRYPT_N, r=access.SCRYPT_R, p=access.SCRYPT_P)
    with writing(datadir) as connection:
        users.update(connection, username, password, restricted=True)


@click.command("user-list")
@datadir
def listed(datadir: Path) -> None:
    """Print all users, a line each, and the jobs that restricted ones may upload."""
    with reading(datadir) as connection:
        for user in users.everyone(connection):
            rights = (
                f"restricted: {', '.join(users.allowed(connection, user)) or 'no jobs'}"
                if user.restricted
                else "unrestricted"
            )
            click.echo(f"{user.username}\t{rights}{'' if user.password_hash else ', disabled'}")


@click.command("access-add")
@datadir
@click.argument("username")
@click.argument("job")
def access_add(datadir: Path, username: str, job: str) -> None:
    """Let a restricted user upload builds of a job.

    \b
    Example:
      builder-db access-add partner hello
    """
    with writing(datadir) as connection:
        users.allow(connection, username, job)


@click.command("access-remove")
@datadir
@click.argument("username")
@click.argument("job")
def access_remove(datadir: Path, username: str, job: str) -> None:
    """Let a restricted user no longer upload builds of a job."""
    with writing(datadir) as connection:
        users.forbid(connection, username, job)
