"""Which builds are kept, in the words that builder-db and builder-web take: ``except-latest-successful 5 --job hello``."""

import datetime as dt
import shlex
from collections.abc import Callable
from typing import Any

import click
from attrs import evolve, frozen

from builder.model import Instant
from builder.quantities import InvalidQuantity, parse_duration
from builder_web.store.removal import Policy

_DATES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S")


class _Date(click.ParamType):  # type: ignore[type-arg]  # older versions of click have none
    """A date, or how long ago it is."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Instant | dt.timedelta:
        """Return the moment, or the age. Raises click.BadParameter."""
        for form in _DATES:
            try:
                return Instant.from_datetime(dt.datetime.strptime(value, form).replace(tzinfo=dt.UTC))
            except ValueError:
                continue
        try:
            return dt.timedelta(seconds=parse_duration(value))
        except InvalidQuantity:
            self.fail(f"{value!r} is neither a date such as 2026-01-31 nor an age such as 90d", param, ctx)


def _older_than(limit: Instant | dt.timedelta) -> Policy:
    return Policy(newer_than_age=limit) if isinstance(limit, dt.timedelta) else Policy(newer_than=limit)


@frozen(kw_only=True)
class _Kind:
    name: str
    metavar: str
    type: "click.ParamType[Any]"
    make: Callable[[Any], Policy]
    help: str


_KINDS = (
    _Kind(
        name="older-than",
        metavar="DATE",
        type=_Date(),
        make=_older_than,
        help="Remove builds that began before a date, in UTC, or longer ago than an age such as 90d.",
    ),
    _Kind(
        name="except-latest",
        metavar="COUNT",
        type=click.IntRange(0),
        make=lambda count: Policy(latest=count),
        help="Keep so many of the newest builds of each job on each platform.",
    ),
    _Kind(
        name="except-latest-successful",
        metavar="COUNT",
        type=click.IntRange(0),
        make=lambda count: Policy(latest_successful=count),
        help="Keep so many of the newest successful builds of each job on each platform, and whatever is newer than these.",
    ),
)


def add_commands(group: click.Group, then: Callable[..., Any], options: tuple[click.Option, ...] = ()) -> None:
    """Give a group a command for each kind of policy. ``then`` is called with the policy, and the values of the options."""
    for kind in _KINDS:
        group.add_command(_command(kind, then, options))


def _command(kind: _Kind, then: Callable[..., Any], options: tuple[click.Option, ...]) -> click.Command:
    def run(value: Any, jobs: tuple[str, ...], platform: str | None, **values: Any) -> Any:
        return then(evolve(kind.make(value), jobs=jobs, platform=platform), **values)

    return click.Command(
        kind.name,
        callback=run,
        help=kind.help,
        params=[
            *options,
            click.Option(["--job", "jobs"], multiple=True, help="Only builds of that job; may be given several times."),
            click.Option(["--platform"], help="Only builds on that platform."),
            click.Argument(["value"], type=kind.type, metavar=kind.metavar),
        ],
    )


def parse(text: str) -> Policy:
    """Return the policy that words mean. Raises ValueError, whose text says what is wrong."""
    if not text.strip():
        raise ValueError("there is no policy; words are such as: except-latest-successful 5")
    group = click.Group("vacuum", add_help_option=False)
    add_commands(group, lambda policy: policy)
    try:
        found = group.main(shlex.split(text), standalone_mode=False)
    except click.ClickException as error:
        raise ValueError(error.format_message()) from error
    if not isinstance(found, Policy):  # of --help
        raise ValueError("it asks for help; see: builder-db vacuum --help")  # noqa: TRY004
    return found
