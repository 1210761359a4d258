"""Options and arguments that commands share, and what they stand for."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

from builder.address import DEFAULT_PORT, parse_address
from builder.errors import InvalidAddress
from builder.model import Period, check_name

from . import words

if TYPE_CHECKING:  # it takes 30 ms, which no --help should wait for; nor for `completion` below
    from .remote import Remote

_REMOTE = "builder_client.remote"
_DEFAULT_REMOTE = f"127.0.0.1:{DEFAULT_PORT}"

_T = TypeVar("_T")

# --- the server ----------------------------------------------------------------------------------------------------


def _address(context: click.Context) -> tuple[str, int]:
    text = context.meta.get(_REMOTE) or os.environ.get("BUILDER_REMOTE") or _DEFAULT_REMOTE
    return parse_address(text)


def remote() -> "Remote":
    """Return the server that is meant. Raises InvalidAddress."""
    from .remote import Remote

    host, port = _address(click.get_current_context())
    return Remote(host=host, port=port)


def _keep_remote(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_REMOTE] = value


# They may stand before the subcommand as well as after it, where the original has them.
server_options = click.option(
    "-r",
    "--remote",
    metavar="HOST:PORT",
    callback=_keep_remote,
    expose_value=False,
    help=f"The server: name or address, [IPv6] in brackets.  [env: BUILDER_REMOTE; default: {_DEFAULT_REMOTE}]",
)

# --- values --------------------------------------------------------------------------------------------------------


def by(convert: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """Return the callback of a parameter whose value ``convert`` makes, or refuses with a ValueError."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> _T | None:
        try:
            return None if value is None else convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def name(what: str) -> Callable[[str], str]:
    """Return what refuses a text that can't be a name of that kind, with a ValueError."""

    def checked(value: str) -> str:
        check_name(value, what=what)
        return value

    return checked


def completes(source: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion by the function of that name in ``completion``."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from . import completion

        try:
            address = _address(context)
        except InvalidAddress:
            return []
        return [CompletionItem(name) for name in completion.complete(address, getattr(completion, source), incomplete)]

    return complete


PERIODS = click.Choice([period.value for period in Period])

# --- arguments and options -----------------------------------------------------------------------------------------

job_argument = click.argument("name", metavar="NAME", shell_complete=completes("jobs"))
new_name_argument = click.argument("name", metavar="NAME", callback=by(name("job name")))
period_option = click.option(
    "--period",
    type=PERIODS,
    callback=by(Period),
    default=Period.DAILY.value,
    metavar="PERIOD",
    help="How often: hourly, daily, weekly or never (only when executed).  [default: daily]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto: on a terminal, unless NO_COLOR is set.  [default: auto]",
)
exit_status_option = click.option(
    "--exit-status",
    is_flag=True,
    help=f"Exit as the job did: with its status, 128 + signal, or {words.NO_EXIT_STATUS} if it was aborted.",
)
