"""The options of limits, one for each, and the address of a database; and how the values of options are read."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from attrs import fields
from click.core import ParameterSource

from builder.quantities import InvalidQuantity, parse_size
from builder.sizes import format_size
from builder_server.limits import ServerLimits

Command = TypeVar("Command", bound=Callable[..., Any])

_PASSWORD = re.compile(r"://[^/?#]*:[^/?#@]*@|[?&]password=")
"""What the address of a database looks like that holds a password."""


def read_by(parse: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return what reads the value of an option, if there is one, so that what is wrong with it names the option."""

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else parse(value)
        except InvalidQuantity as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return read


def limit_options(command: Command) -> Command:
    """Add an option for each limit; see ``limits_of``."""
    for each in reversed(fields(ServerLimits)):
        is_size, default = each.metadata["is_size"], each.default
        assert isinstance(default, int), "each has one"
        command = click.option(
            f"--max-{each.name.replace('_', '-')}",
            type=str if is_size else click.IntRange(1),
            callback=read_by(parse_size) if is_size else None,
            default=format_size(default).replace(" ", "") if is_size else default,
            show_default=True,
            metavar="SIZE" if is_size else "NUMBER",
            help=each.metadata["meaning"],
        )(command)
    return command


def limits_of(given: Mapping[str, Any]) -> ServerLimits:
    """Return the limits among the parameters of a command."""
    return ServerLimits(**{each.name: given[f"max_{each.name}"] for each in fields(ServerLimits)})


def check_database(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the address of a database. Raises click.BadParameter for a password that others can read."""
    is_seen = parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    if value is not None and is_seen and _PASSWORD.search(value):
        raise click.BadParameter(
            "others on this machine can read a command line: write the password to a file, and name that with "
            "--database-password-file",
            context,
            parameter,
        )
    return value
