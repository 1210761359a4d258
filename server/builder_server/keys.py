"""The commands of builder-server for the keys that it signs with."""

import datetime as dt
from pathlib import Path

import click

from builder.quantities import parse_duration, parse_pause
from builder_server.administration import in_directory
from builder_server.options import read_by
from builder_server.served import check_owner


@click.group()
def keys() -> None:
    """Look after the keys that sign what builds were.

    They are files below DIR/builder.keys that nobody but the server's user can read, made when the first build is signed. docs/provenance.md
    says how others verify with them.
    """


@keys.command("list", epilog="\b\nExample:\n  builder-server --dir /var/lib/builder keys list")
@in_directory
def list_keys(served: Path, directory: Path | None) -> None:
    """List the keys, the oldest first: ID, from when, until when, and whether builds are signed with it now."""
    from builder_server import server
    from builder_server.keyring import Keyring

    now = server.wall_clock()
    found = Keyring(directory or served).all()
    if not found:
        click.echo("there is no key yet: the first is made when a build is signed, or by 'keys public'", err=True)
    for key in found:
        begin, end = key.public.valid_from, key.public.valid_until
        signs = key.private_pem is not None and key.public.is_valid_at(now)
        period = f"from {begin.isoformat() if begin else '-'} until {end.isoformat() if end else '-'}"
        click.echo(f"{key.public.id} {period} {'signs' if signs else 'signs nothing'}")


@keys.command(
    epilog="""\b
Examples:
  builder-server --dir /var/lib/builder keys rotate
  builder-server keys rotate --overlap 7d --valid-for 365d"""
)
@click.option(
    "--overlap",
    callback=read_by(parse_pause),
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="How long the keys before stay valid; 0 after one was stolen.",
)
@click.option(
    "--valid-for",
    callback=read_by(parse_duration),
    metavar="DURATION",
    help="How long the new key is valid.  [default: until it is rotated]",
)
@in_directory
def rotate(served: Path, directory: Path | None, *, overlap: float, valid_for: float | None) -> None:
    """Make a new key; those before stay valid for an overlap, in which builds are signed with all of them.

    Whoever verifies has that long to take what 'keys public' prints. The server may run meanwhile.
    """
    from builder_server import server
    from builder_server.keyring import Keyring

    lasting = dt.timedelta(seconds=overlap)
    period = None if valid_for is None else dt.timedelta(seconds=valid_for)
    where = directory or served
    check_owner(where)
    click.echo(f"made key {Keyring(where).rotate(server.wall_clock(), lasting, period).public.id}")


@keys.command(epilog="\b\nExample:\n  builder-server --dir /var/lib/builder keys public > builder.pub")
@in_directory
def public(served: Path, directory: Path | None) -> None:
    """Print the public keys with their periods, as PEM: what others verify with.

    A server that has no key yet gets its first one.
    """
    from builder.provenance.keys import public_text
    from builder_server import server
    from builder_server.keyring import Keyring

    where = directory or served
    check_owner(where)
    click.echo(public_text(Keyring(where).public(server.wall_clock())), nl=False)
