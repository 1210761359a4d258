"""Options in a file, and which of all those that are said are in force.

The command line wins over the environment, that over the file. A command of the class ``Configured`` with
``configuration_options`` has them all: ``--config FILE`` takes TOML whose keys are its options by their long names without the
dashes, and ``--print-config`` shows in the same form what is in force, and where each value comes from.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource, iter_params_for_processing

from builder.runtime import secrecy
from builder.runtime.program import said, tell

CHECK = "check-config"
"""The command that looks for all that is wrong, and does nothing else."""

INVALID = 2
"""Exit status where something is."""

_GIVEN, _FILE, _FAULTS = (f"builder.configuration.{name}" for name in ("given", "file", "faults"))

_CONFIG, _PRINT = "config", "print_config"

_PLACES = {ParameterSource.COMMANDLINE: "command line", ParameterSource.DEFAULT: "default"}

_UNSET = getattr(click.core, "UNSET", None)
"""What newer releases of click have for no value while options are parsed."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Configured(click.Command):
    """A command whose options may stand in a file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; do all of --print-config, and of ``check-config``, if that stands there."""
        given, rest, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_GIVEN] = given
        # where a command has an argument, that one may be all that stands there
        if [*(value for each in self.params if (value := _argument(each, given))), *rest][-1:] == [CHECK]:
            self._check(ctx, given, order)
        if given.get(_PRINT):
            self._show(ctx, given, order)
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            raise _located(error, ctx) from error

    def faults(self, given: Mapping[str, Any]) -> Iterable[str]:
        """Return what is wrong with the values of options, which may be None where they are wrong by themselves."""
        del given
        return ()

    def _show(self, ctx: click.Context, given: Mapping[str, Any], order: list[click.Parameter]) -> None:
        """Print what is in force, and exit; an argument need not be there."""
        for parameter in iter_params_for_processing(order, self.get_params(ctx)):
            if isinstance(parameter, click.Option):
                try:
                    parameter.handle_parse_result(ctx, given, [])
                except click.BadParameter as error:
                    raise _located(error, ctx) from error
        for line in in_force(ctx):
            click.echo(line)
        raise click.exceptions.Exit(0)

    def _check(self, ctx: click.Context, given: Mapping[str, Any], order: list[click.Parameter]) -> None:
        """Say all that is wrong, a line each, and exit."""
        trial = self.context_class(self, info_name=ctx.info_name, parent=ctx.parent, **self.context_settings)
        found: list[str] = []
        trial.meta[_FAULTS] = found
        is_read = True
        for parameter in iter_params_for_processing(order, self.get_params(trial)):
            if not isinstance(parameter, click.Option):
                continue
            try:
                parameter.handle_parse_result(trial, given, [])
            except click.UsageError as error:
                error = _located(error, trial) if isinstance(error, click.BadParameter) else error
                found.append(said(error))
                is_read = is_read and parameter.name != _CONFIG
        if is_read:  # else what would be missed may stand there
            there = {name: value for name, value in trial.params.items() if value is not _UNSET}
            found += self.faults({str(option.name): None for option in options_of(self)} | there)
        program = ctx.find_root().command_path
        for fault in found:
            tell(program, fault)
        if not found:
            click.echo(f"{program}: nothing is wrong")
        raise click.exceptions.Exit(INVALID if found else 0)


def _argument(parameter: click.Parameter, given: Mapping[str, Any]) -> object:
    value = given.get(parameter.name or "") if isinstance(parameter, click.Argument) else None
    return value if isinstance(value, str) else None


def _located(error: click.BadParameter, context: click.Context) -> click.BadParameter:
    """Return it with where the value comes from, unless it stands on the command line."""
    option = error.param
    if isinstance(option, click.Option) and option.name:
        source = context.get_parameter_source(option.name)
        if source in (ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP):
            message = f"{error.message.rstrip('.')} ({_where(context, option, source)})"
            return click.BadParameter(message, error.ctx, option, error.param_hint)
    return error


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


def _read_file(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    """Make a file's values the defaults of the other options: whatever is given otherwise wins."""
    if path is None:
        return
    try:
        defaults, faults = read(context.command, path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.BadParameter(f"can't read {path}: {reason}", context) from error
    faults = [f"{path}: {fault}" for fault in faults]
    if faults and _FAULTS not in context.meta:
        raise click.BadParameter(faults[0], context)
    context.meta.get(_FAULTS, []).extend(faults)
    context.meta[_FILE] = str(path)
    context.default_map = defaults


def read(command: click.Command, data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return the values in a file by the options' names, and what is wrong with others. Raises ValueError unless it is TOML."""
    known = {key_of(option): option for option in options_of(command)}
    values: dict[str, Any] = {}
    faults = []
    for key, value in _tables(data).items():
        option = known.get(key.replace("_", "-"))
        if option is None or option.name is None:
            faults.append(_unknown(key, value, command, sorted(known)))
        elif option.multiple:
            given = value if isinstance(value, list) else [value]
            if all(isinstance(each, str) for each in given):
                values[option.name] = given
            else:
                faults.append(f"--{key_of(option)} takes text in quotes, or a list of such")
        elif isinstance(value, bool) and not (option.is_flag or option.count):
            faults.append(f"--{key_of(option)} takes a value, and is neither true nor false")
        elif isinstance(value, bool | str | int | float):
            values[option.name] = value if isinstance(value, bool) else str(value)
        else:
            faults.append(f"{key_of(option)} must have one value")
    return values, faults


def _unknown(key: str, value: object, command: click.Command, known: Sequence[str]) -> str:
    if isinstance(value, dict):
        return f"unknown option {key!r}: options stand in no table, so leave [{key}] out"
    if key in {each.name for each in command.params if isinstance(each, click.Argument)}:
        return f"unknown option {key!r}: it stands on the command line, as {key.upper()}"
    if nearest := difflib.get_close_matches(key.replace("_", "-"), known, 1, 0.7):
        return f"unknown option {key!r}: {nearest[0]!r} is one"
    return f"unknown option {key!r}; there are {', '.join(known)}"


def _tables(data: bytes) -> dict[str, Any]:
    """Read TOML. Raises ValueError, which names the line."""
    try:
        text = data.decode("utf-8-sig")  # some editors put a mark at the begin
    except UnicodeDecodeError as error:
        raise ValueError(f"line {data[: error.start].count(10) + 1} is not UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, _, where = str(error).partition(" (at ")
        lines = text.splitlines() or [""]
        number = int(found[1]) if (found := re.match(r"line ([0-9]+)", where)) else len(lines)
        line = lines[min(number, len(lines)) - 1].strip()
        raise ValueError(f"line {number}, {line[:100]!r}: {reason}; write KEY = VALUE, with text in quotes") from error


# --- what is in force ----------------------------------------------------------------------------------------------


def in_force(context: click.Context) -> Iterator[str]:
    """Return a line of TOML for each option: its value as it was written, without what is secret, and where it comes from."""
    for option in options_of(context.command):
        value, source = option.consume_value(context, context.meta[_GIVEN])
        yield f"{_assignment(option, value)}  # {_where(context, option, source)}"


def _where(context: click.Context, option: click.Option, source: ParameterSource) -> str:
    if source is ParameterSource.ENVIRONMENT:
        return f"environment, {_variable(context, option)}"
    return _PLACES.get(source) or str(context.meta.get(_FILE, "file"))


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
