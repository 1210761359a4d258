"""``builder-server certificates``: the authority that makes certificates for a server and those who may use it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from builder.roles import HolderRole

if TYPE_CHECKING:  # they import the cryptography library
    import datetime as dt

    from builder_server.authority import Authority, Certified

DAYS = 365
"""How long a certificate lasts, unless it is said otherwise."""

SOON = 30
"""Days before its end in which a certificate is said to expire."""

_REASONS = ("unspecified", "key-compromise", "affiliation-changed", "superseded", "cessation-of-operation")


@frozen(kw_only=True)
class _Place:
    directory: Path
    key: Path | None

    def open(self) -> "Authority":
        from builder_server.authority import Authority

        return Authority.open(self.directory, self.key)


@click.group(
    epilog="""\b
Examples:
  builder-server --config-dir . certificates init --name build.example.org
  builder-server --config-dir . certificates issue ann --role operator
  builder-server --config-dir . certificates issue w1 --role worker --platform debian-12
  builder-server --config-dir . certificates revoke w1 --reason key-compromise"""
)
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory of the authority.  [default: CONFIG-DIR/certificates]",
)
@click.option(
    "--ca-key",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the authority's key is, as on a disk that is not always there.  [default: ca.key in the directory]",
)
@click.pass_context
def certificates(context: click.Context, directory: Path | None, ca_key: Path | None) -> None:
    """Make and revoke the certificates with which a server and those who use it know each other.

    The server takes what changes within a second, without a restart. Whoever has the authority's key can let anybody in.
    """
    assert context.parent is not None, "it is a command of the server"
    place = directory or context.parent.params["config_dir"] / "certificates"
    context.obj = _Place(directory=place.absolute(), key=ca_key and ca_key.absolute())


_days = click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=DAYS,
    show_default=True,
    help="How long it lasts; the authority's own end is the latest.",
)


@certificates.command(
    epilog="\b\nExample:\n  builder-server certificates init --name build.example.org --name 192.0.2.7"
)
@click.option(
    "--name",
    "hosts",
    metavar="HOST",
    multiple=True,
    required=True,
    help="Name or address under which others reach the server. Repeat.",
)
@_days
@click.pass_obj
def init(place: _Place, *, hosts: tuple[str, ...], days: int) -> None:
    """Make an authority, the server's certificate, and an empty list of those that are revoked.

    The authority lasts ten years. Its key, ca.key, and the server's, server.key, can be read by their owner alone.
    """
    from builder_server.authority import Authority

    made = Authority.init(place.directory, place.key, hosts, days=days, now=_now())
    directory, key = made.directory, made.key_of("server")
    click.echo(f"made an authority in {directory}, and the server's certificate for {', '.join(hosts)}")
    click.echo("The server is started with")
    click.echo(f"  --tls-cert {made.certificate_of('server')} --tls-key {key} --tls-client-ca {directory / 'ca.pem'}")


@certificates.command(
    epilog="""\b
Examples:
  builder-server certificates issue ann --role operator
  builder-server certificates issue w1 --role worker --platform debian-12 --platform debian-13 --days 90"""
)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in HolderRole]),
    multiple=True,
    required=True,
    help="What its holder may do: worker takes jobs, operator gives all commands, observer those that change nothing, provisioner these and what "
    "builder-provision tells. Repeat.",
)
@click.option(
    "--platform", "platforms", metavar="PLATFORM", multiple=True, help="Take jobs of this platform only. Repeat."
)
@_days
@click.pass_obj
def issue(place: _Place, name: str, *, roles: tuple[str, ...], platforms: tuple[str, ...], days: int) -> None:
    """Make a certificate and a key for NAME, a person or a machine, and print what its holder has to set."""
    authority = place.open()
    made = authority.issue(name, [HolderRole(role) for role in roles], platforms, days=days, now=_now())
    _tell_holder(authority, made, new=True)


@certificates.command(
    epilog="""\b
Examples:
  builder-server certificates renew ann
  builder-server certificates renew server --name build.example.org --name farm.example.org"""
)
@click.argument("name")
@click.option(
    "--name",
    "hosts",
    metavar="HOST",
    multiple=True,
    help="For the server: its names from now on, instead of those it has. Repeat.",
)
@_days
@click.pass_obj
def renew(place: _Place, name: str, *, hosts: tuple[str, ...], days: int) -> None:
    """Make a certificate for NAME, or for 'server', that lasts longer, with the same roles.

    The key stays the same, so that the new certificate is no secret and may be sent in any way. The one before counts until
    its end. For another key, revoke what NAME has and issue anew.
    """
    authority = place.open()
    made = authority.renew(name, hosts, days=days, now=_now())
    if made.is_of_server:
        click.echo(f"renewed {authority.certificate_of(name)} until {_date(made.until)}; the server takes it by itself")
    else:
        _tell_holder(authority, made, new=False)


@certificates.command(epilog="\b\nExample:\n  builder-server certificates revoke w1 --reason key-compromise")
@click.argument("target", metavar="NAME|SERIAL")
@click.option(
    "--reason", type=click.Choice(_REASONS), default=_REASONS[0], show_default=True, help="Why, for the list."
)
@click.pass_obj
def revoke(place: _Place, target: str, *, reason: str) -> None:
    """Revoke all certificates that NAME has, or the one with that serial number.

    The server refuses them within a second, and ends the connections of their holder. It can't be undone.
    """
    from cryptography.x509 import ReasonFlags

    flag = ReasonFlags["_".join(reason.split("-"))]
    for each in place.open().revoke(target, flag, now=_now()):
        click.echo(f"revoked {each.serial} of {each.name}")


@certificates.command("list", epilog="\b\nExample:\n  builder-server certificates list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
@click.pass_obj
def list_(place: _Place, *, as_json: bool) -> None:
    """List all certificates: whose they are, what they allow, their serial numbers, until when, and what became of them."""
    now = _now()
    authority = place.open()
    rows = [_row(each, now) for each in authority.listed()]
    if as_json:
        until = authority.certificate.not_valid_after_utc
        shown = {"authority": {"directory": str(authority.directory), "until": _time(until)}, "certificates": rows}
        click.echo(json.dumps(shown, indent=2))
        return
    heads = ("name", "roles", "serial", "until", "state")
    table = [tuple(head.upper() for head in heads), *(tuple(_cell(row[head]) for head in heads) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for warning in _warnings(authority, now):
        click.echo(warning, err=True)


def _row(each: "Certified", now: "dt.datetime") -> dict[str, Any]:
    return {
        "name": each.name,
        "roles": _roles(each),
        "serial": each.serial,
        "until": _time(each.until),
        "state": _state(each, now),
        "revoked": None if each.revoked is None else _time(each.revoked.date),
        "reason": None if each.revoked is None else _reason(each),
    }


def _cell(value: Any) -> str:
    from builder.model import printable

    return printable(", ".join(value) if isinstance(value, list) else value)


def _roles(each: "Certified") -> list[str]:
    """Return what a certificate allows; for a server's, for which names it is."""
    from builder_server import issuing

    if each.is_of_server:
        return [str(name.value) for name in issuing.alternatives(each.certificate)]
    who = issuing.identity(each.certificate)
    roles = [role.value for role in HolderRole if role in who.roles and role is not HolderRole.WORKER]
    if who.platforms is None:
        roles.append("worker")
    return [*roles, *(f"worker:{platform}" for platform in sorted(who.platforms or ()))]


def _state(each: "Certified", now: "dt.datetime") -> str:
    if each.revoked:
        return "revoked"
    if now > each.until:
        return "expired"
    if not each.is_newest:
        return "renewed"
    return "expires soon" if (each.until - now).days < SOON else "valid"


def _reason(each: "Certified") -> str:
    assert each.revoked is not None, "it was looked at"
    return each.revoked.reason.name.replace("_", "-")


def _warnings(authority: "Authority", now: "dt.datetime") -> list[str]:
    found = []
    until = authority.certificate.not_valid_after_utc
    if (until - now).days < SOON:
        found.append(f"The authority ends on {_date(until)}, and all certificates with it: make a new one beside it.")
    ends = authority.list_ends()
    if ends is not None and ends < now:
        found.append(f"The list of those that are revoked was to be made anew by {_date(ends)}: 'revoke' does that.")
    return found


def _tell_holder(authority: "Authority", made: "Certified", *, new: bool) -> None:
    """Print what a holder has to be given, and has to set."""
    certificate, key, ca = (
        authority.certificate_of(made.name),
        authority.key_of(made.name),
        authority.directory / "ca.pem",
    )
    may = ", ".join(_roles(made))
    click.echo(f"{made.name} may be {may} until {_date(made.until)}, with the certificate {made.serial}")
    if not new:
        click.echo(f"Send {certificate} to its holder, in place of the one before.")
        return
    click.echo(f"Move to its holder, and nobody else: {key}")
    click.echo(f"Copy as well: {certificate} {ca}")
    click.echo("There, with the paths that they have:")
    click.echo(f"  export BUILDER_TLS_CA={ca.name} BUILDER_TLS_CERT={certificate.name} BUILDER_TLS_KEY={key.name}")


def _now() -> "dt.datetime":
    import datetime as dt

    return dt.datetime.now(dt.UTC)


def _date(when: "dt.datetime") -> str:
    return f"{when:%Y-%m-%d}"


def _time(when: "dt.datetime") -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
