"""Options in a file, and which of all those that are said are in force.

The command line wins over the environment, that over the file. A command of the class ``Configured`` with
``configuration_options`` has them all: ``--config FILE`` takes TOML whose keys are its options by their long names without the
dashes, and ``--print-config`` shows in the same form what is in force, and where each value comes from.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource, iter_params_for_processing

from builder.runtime import secrecy
from builder.runtime.program import tell

CHECK = "check-config"
"""The command that looks for all that is wrong, and does nothing else."""

INVALID = 2
"""Exit status where something is."""

_GIVEN, _SHOWN, _FILE, _FAULTS = (f"builder.configuration.{name}" for name in ("given", "shown", "file", "faults"))

_PLACES = {ParameterSource.COMMANDLINE: "command line", ParameterSource.DEFAULT: "default"}

_UNSET = getattr(click.core, "UNSET", None)
"""What newer releases of click have for no value while options are parsed."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Configured(click.Command):
    """A command whose options may stand in a file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and do all of ``check-config`` if that stands there."""
        given, rest, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_GIVEN] = given
        if rest == [CHECK]:
            self._check(ctx, given, order)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Do what the command does, or show its options."""
        if not ctx.meta.get(_SHOWN):
            return super().invoke(ctx)
        for line in in_force(ctx):
            click.echo(line)
        return None

    def faults(self, given: Mapping[str, Any]) -> Iterable[str]:
        """Return what is wrong with the values of options, which may be None where they are wrong by themselves."""
        del given
        return ()

    def _check(self, ctx: click.Context, given: Mapping[str, Any], order: list[click.Parameter]) -> None:
        """Say all that is wrong, a line each, and exit."""
        trial = self.context_class(self, info_name=ctx.info_name, parent=ctx.parent, **self.context_settings)
        found: list[str] = []
        trial.meta[_FAULTS] = found
        for parameter in iter_params_for_processing(order, self.get_params(trial)):
            try:
                parameter.handle_parse_result(trial, given, [])
            except click.UsageError as error:
                found.append(error.format_message())
        there = {name: value for name, value in trial.params.items() if value is not _UNSET}
        found += self.faults({str(option.name): None for option in options_of(self)} | there)
        for fault in found:
            tell(ctx.command_path, fault)
        if not found:
            click.echo(f"{ctx.command_path}: nothing is wrong")
        raise click.exceptions.Exit(INVALID if found else 0)


def options_of(command: click.Command) -> list[click.Option]:
    """Return the options that may stand in a file."""
    return [option for option in command.params if isinstance(option, click.Option) and option.expose_value]


def key_of(option: click.Option) -> str:
    """Return how an option is called in a file."""
    return max(option.opts, key=len).removeprefix("--")


# --- a file --------------------------------------------------------------------------------------------------------


def configuration_options(command: Command) -> Command:
    """Add --config and --print-config."""
    show = click.option(
        "--print-config",
        is_flag=True,
        expose_value=False,
        callback=_note_shown,
        help="Print what is in force and where each value comes from, without what is secret, and exit.",
    )
    read = click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        metavar="FILE",
        callback=_read_file,
        help="Read options from a TOML file.",
    )
    return read(show(command))


def _note_shown(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    context.meta[_SHOWN] = value


def _read_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make a file's values the defaults of the other options: whatever is given otherwise wins."""
    if path is None:
        return
    try:
        text = path.read_text("utf-8")
        defaults, faults = read(context.command, text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"can't read {path}: {reason}", context) from error
    faults = [f"{path}: {fault}" for fault in faults]
    if faults and _FAULTS not in context.meta:
        raise click.BadParameter(faults[0], context)
    context.meta.get(_FAULTS, []).extend(faults)
    context.meta[_FILE] = str(path)
    context.default_map = defaults


def read(command: click.Command, text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values in a file by the options' names, and what is wrong with others. Raises ValueError unless it is TOML."""
    known = {key_of(option): option for option in options_of(command)}
    values: dict[str, Any] = {}
    faults = []
    for key, value in tomllib.loads(text).items():
        option = known.get(key.replace("_", "-"))
        if option is None or option.name is None:
            faults.append(f"unknown option {key!r}; there are {', '.join(sorted(known))}")
        elif option.multiple:
            given = value if isinstance(value, list) else [value]
            if all(isinstance(each, str) for each in given):
                values[option.name] = given
            else:
                faults.append(f"--{key_of(option)} takes text in quotes, or a list of such")
        elif isinstance(value, bool | str | int | float):
            values[option.name] = value if isinstance(value, bool) else str(value)
        else:
            faults.append(f"{key_of(option)} must have one value")
    return values, faults


# --- what is in force ----------------------------------------------------------------------------------------------


def in_force(context: click.Context) -> Iterator[str]:
    """Return a line of TOML for each option: its value as it was written, without what is secret, and where it comes from."""
    for option in options_of(context.command):
        value, source = option.consume_value(context, context.meta[_GIVEN])
        where = _PLACES.get(source) or (
            f"environment, {_variable(context, option)}"
            if source is ParameterSource.ENVIRONMENT
            else context.meta.get(_FILE, "file")
        )
        yield f"{_assignment(option, value)}  # {where}"


def _assignment(option: click.Option, value: object) -> str:
    if option.multiple:
        texts = value if isinstance(value, list | tuple) else ()
        return f"{key_of(option)} = [{', '.join(_quoted(masked(option, str(text))) for text in texts)}]"
    match value:
        case bool():
            return f"{key_of(option)} = {str(value).lower()}"
        case int() | float():
            return f"{key_of(option)} = {value}"
        case str() if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
            return f"{key_of(option)} = {value}"
        case str() | Path():
            return f"{key_of(option)} = {_quoted(masked(option, str(value)))}"
    return f"#{key_of(option)} ="  # it has no value of its own, and its help says what follows


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def masked(option: click.Option, text: str) -> str:
    """Return the value of an option without passwords of URLs, and without values of variables, which may be any secret."""
    if option.name == "env":
        return re.sub(r"=.*", "=***", text, flags=re.DOTALL)
    return secrecy.masked(text)


def _variable(context: click.Context, option: click.Option) -> str:
    """Return the variable that an option is taken from."""
    named = [option.envvar] if isinstance(option.envvar, str) else [*(option.envvar or ())]
    prefix = context.auto_envvar_prefix
    automatic = [f"{prefix}_{option.name.upper()}"] if prefix and option.name else []
    return next((name for name in [*named, *automatic] if os.environ.get(name)), "")
