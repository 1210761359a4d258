"""Options and arguments that commands share, and what they stand for."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

from builder.address import DEFAULT_PORT
from builder.endpoint import TLS, Servers, variable
from builder.errors import BuilderError
from builder.model import Period, check_name

from . import config, words

if TYPE_CHECKING:  # it takes 30 ms, which no --help should wait for; nor for `completion` below
    from .remote import Remote

_SERVER, _TLS = "builder_client.server", "builder_client.tls"
_DEFAULT_REMOTE = f"127.0.0.1:{DEFAULT_PORT}"


class NotConfirmed(BuilderError):
    """A person did not want what a command would have destroyed."""


_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., object] | click.Command)

# --- the server ----------------------------------------------------------------------------------------------------


def servers(context: click.Context) -> Servers:
    """Return the servers that are meant. Raises InvalidAddress, IncompleteTls and InvalidSettings."""
    (text, from_file), _ = chosen(context)
    given = given_tls(context)
    return Servers.of(
        text, {name: given.get(name) or os.environ.get(variable(name)) or from_file.get(name) for name in TLS}
    )


def given_tls(context: click.Context) -> dict[str, str]:
    """Return what the command line says of TLS, by the names of the options."""
    found: dict[str, str] = context.meta.get(_TLS, {})
    return found


def chosen(context: click.Context) -> tuple[config.Entry, str]:
    """Return the address of the server that is meant, what the file says of its TLS, and who has chosen it."""
    if find := context.meta.get(_SERVER):
        return find(), "command line"
    if text := os.environ.get("BUILDER_REMOTE"):
        return (text, {}), "environment, BUILDER_REMOTE"
    if name := os.environ.get("BUILDER_SERVER"):
        return config.server(name), "environment, BUILDER_SERVER"
    if name := config.settings().default:
        return config.server(name), str(config.path())
    return (_DEFAULT_REMOTE, {}), "default"


def remote() -> "Remote":
    """Return the servers that are meant. Raises what ``servers`` does."""
    from .remote import Remote

    return Remote(servers=servers(click.get_current_context()))


def _chooses(find: Callable[[str], config.Entry]) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """Return the callback of an option by which ``find`` finds the server; of several the last one holds."""

    def callback(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value:  # a variable of a script may be empty
            context.meta[_SERVER] = partial(find, value)

    return callback


def _note_tls(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Keep the value of an option of TLS; it may stand before the command as well as after it."""
    if value and parameter.name:
        context.meta.setdefault(_TLS, {})[parameter.name.replace("_", "-")] = value


def _complete_server(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from . import completion

    try:
        names = config.settings().servers
    except config.InvalidSettings:
        return []
    return [CompletionItem(name) for name in completion.safe(names, incomplete)]


_remote_option = click.option(
    "-r",
    "--remote",
    metavar="HOST:PORT",
    callback=_chooses(lambda text: (text, {})),
    expose_value=False,
    help="The server: name or address, [IPv6] in brackets, or unix:PATH for its socket on this machine. Several with commas "
    f"between them are tried in any order until one answers.  [env: BUILDER_REMOTE; default: {_DEFAULT_REMOTE}]",
)
_server_option = click.option(
    "-s",
    "--server",
    metavar="NAME",
    callback=_chooses(config.server),
    expose_value=False,
    shell_complete=_complete_server,
    help="The server of that name in client.toml.  [env: BUILDER_SERVER; default: the file's]",
)
_tls_options = [
    click.option(
        f"--{name}", metavar=metavar, callback=_note_tls, expose_value=False, help=f"{meaning}  [env: {variable(name)}]"
    )
    for name, (metavar, meaning) in TLS.items()
]


def server_options(command: _F) -> _F:
    """Add the options that choose the server. They may stand before the command as well as after it."""
    for option in reversed((_remote_option, _server_option, *_tls_options)):
        command = option(command)
    return command


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
            found = servers(context)
        except BuilderError:
            return []
        return [CompletionItem(name) for name in completion.complete(found, getattr(completion, source), incomplete)]

    return complete


PERIODS = click.Choice([period.value for period in Period])

# --- arguments and options -----------------------------------------------------------------------------------------

job_argument = click.argument("name", metavar="NAME", shell_complete=completes("jobs"))
new_name_argument = click.argument("name", metavar="NAME", callback=by(name("job name")))


build_argument = click.argument("build", metavar="ID", callback=by(words.parse_id), shell_complete=completes("builds"))
platform_option = click.option(
    "--platform", metavar="PLATFORM", shell_complete=completes("platforms"), help="Only there.  [default: everywhere]"
)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, where a person is there to answer. Raises NotConfirmed.

    Nobody is asked but on a terminal, nor with ``--yes`` or the file's ``yes``.
    """
    is_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    if yes or not is_terminal or config.settings().yes:
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.buffer.readline()
    if not answer.endswith(b"\n"):  # as after Ctrl-D
        print(file=sys.stderr)
    if answer.strip().lower() not in (b"y", b"yes"):
        raise NotConfirmed("nothing was changed")


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask; without a terminal nobody is asked.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")


def color(given: str | None = None) -> str:
    """Return when there are colours, by an option or else the environment or else the file."""
    if given is not None:
        return given
    return "auto" if os.environ.get("NO_COLOR") else config.settings().color  # auto heeds it


color_option = click.option(
    "--color",
    type=click.Choice(config.COLORS),
    callback=lambda _context, _parameter, value: color(value),
    help="Colours; auto: on a terminal, unless NO_COLOR is set.  [default: auto]",
)
exit_status_option = click.option(
    "--exit-status",
    is_flag=True,
    help=f"Exit as the job did: with its status, 128 + signal, or {words.NO_EXIT_STATUS} if it was aborted.",
)
