"""The command line of builder-client: options and arguments; what they ask for is done in ``commands``."""

# ruff: noqa: D301  the \b in the docstrings is the character that makes click keep the lines below it

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from builder import __version__
from builder.address import DEFAULT_PORT, parse_address
from builder.errors import InvalidAddress
from builder.model import Instant, Period, check_name
from builder.runtime.program import run

from . import words

if TYPE_CHECKING:
    from .remote import Remote

PROGRAM = "builder-client"
_REMOTE = "builder_client.remote"
_DEFAULT_REMOTE = f"127.0.0.1:{DEFAULT_PORT}"


def _address(context: click.Context) -> tuple[str, int]:
    text = context.meta.get(_REMOTE) or os.environ.get("BUILDER_REMOTE") or _DEFAULT_REMOTE
    return parse_address(text)


def _remote() -> "Remote":
    # a module that needs asn1tools, which --help should not wait for; so are `commands` and `completion` below
    from .remote import Remote

    host, port = _address(click.get_current_context())
    return Remote(host=host, port=port)


def _keep_remote(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_REMOTE] = value


# It may stand before the subcommand as well as after it, where the original has it.
_remote_option = click.option(
    "-r",
    "--remote",
    metavar="HOST:PORT",
    callback=_keep_remote,
    expose_value=False,
    help=f"The server: name or address, [IPv6] in brackets.  [env: BUILDER_REMOTE; default: {_DEFAULT_REMOTE}]",
)


_T = TypeVar("_T")


def _by(convert: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """Return the callback of a parameter whose value ``convert`` makes, or refuses with a ValueError."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> _T | None:
        try:
            return None if value is None else convert(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _name(what: str) -> Callable[[str], str]:
    def checked(value: str) -> str:
        check_name(value, what=what)
        return value

    return checked


def _completes(source: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion by the function of that name in ``completion``."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from . import completion

        try:
            address = _address(context)
        except InvalidAddress:
            return []
        return [CompletionItem(name) for name in completion.complete(address, getattr(completion, source), incomplete)]

    return complete


_job_argument = click.argument("name", metavar="NAME", shell_complete=_completes("jobs"))
_new_name_argument = click.argument("name", metavar="NAME", callback=_by(_name("job name")))
_PERIODS = click.Choice([period.value for period in Period])
_period_option = click.option(
    "--period",
    type=_PERIODS,
    callback=_by(Period),
    default=Period.DAILY.value,
    metavar="PERIOD",
    help="How often: hourly, daily, weekly or never (only when executed).  [default: daily]",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
_color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto: on a terminal, unless NO_COLOR is set.  [default: auto]",
)
_exit_status_option = click.option(
    "--exit-status",
    is_flag=True,
    help=f"Exit as the job did: with its status, 128 + signal, or {words.NO_EXIT_STATUS} if it was aborted.",
)


@click.group(
    no_args_is_help=False,  # a missing command is wrong usage
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@_remote_option
def cli() -> None:
    """Change the schedule of a builder-server, and watch its builds.

    \b
    Examples:
      builder-client schedule hello debian-12 hello.sh --period weekly
      builder-client info
      builder-client execute hello
      builder-client observe-latest --job hello --exit-status
      builder-client -r build.example.org:1234 observe 323b
      export BUILDER_REMOTE=[2001:db8::1]:1234

    \b
    Exit status:
      0 done; 1 other errors; 2 wrong usage; 3 refused by the server, or no such build;
      4 the server does not follow the protocol; 5 unreachable, or the connection was lost;
      130 interrupted; 141 nobody reads the output
    """


@cli.command()
@_new_name_argument
@click.argument(
    "platform", metavar="PLATFORM", callback=_by(_name("platform name")), shell_complete=_completes("platforms")
)
@click.argument("script", metavar="FILE", type=click.File("rb"))
@_period_option
@_remote_option
def schedule(name: str, platform: str, script: BinaryIO, period: Period) -> None:
    """Run the script FILE on PLATFORM periodically, the first time now.

    FILE may be - for standard input. The script is run by its #! line, or by /bin/sh.

    \b
    Examples:
      builder-client schedule hello debian-12 hello.sh
      make-script | builder-client schedule hello debian-12 - --period weekly
    """
    from . import commands

    commands.schedule(_remote(), name=name, platform=platform, script=script, period=period)


@cli.command("orb-build")
@_new_name_argument
@click.argument("opam_package", metavar="OPAM")
@_period_option
@_remote_option
def orb_build(name: str, opam_package: str, period: Period) -> None:
    """Build the opam package OPAM periodically on every platform, through the server's templates.

    \b
    Example:
      builder-client orb-build retreat retreat --period weekly
    """
    from . import commands

    commands.orb_build(_remote(), name=name, opam_package=opam_package, period=period)


@cli.command()
@_job_argument
@_remote_option
def unschedule(name: str) -> None:
    """Remove the job NAME from the schedule and the queues."""
    from . import commands

    commands.unschedule(_remote(), name=name)


@cli.command()
@_job_argument
@click.argument("next_run", metavar="NEXT", callback=_by(words.parse_time))
@click.option(
    "--period",
    type=_PERIODS,
    callback=_by(Period),
    metavar="PERIOD",
    help="A new period: hourly, daily, weekly or never.",
)
@_remote_option
def reschedule(name: str, next_run: Instant, period: Period | None) -> None:
    """Set the next run of the job NAME to the time NEXT.

    NEXT is RFC 3339 with any offset from UTC; without one it is UTC, and the time of day may be left out.

    \b
    Examples:
      builder-client reschedule hello 2030-01-31T06:00:00Z
      builder-client reschedule hello 2030-01-31T08:00+02:00 --period weekly
      builder-client reschedule hello "2030-01-31 06:00"
    """
    from . import commands

    commands.reschedule(_remote(), name=name, next_run=next_run, period=period)


@cli.command()
@_job_argument
@click.option(
    "--platform", metavar="PLATFORM", shell_complete=_completes("platforms"), help="Only there.  [default: everywhere]"
)
@_remote_option
def execute(name: str, platform: str | None) -> None:
    """Run the job NAME as soon as a worker is free: put it at the front of its queue."""
    from . import commands

    commands.execute(_remote(), name=name, platform=platform)


@cli.command()
@_json_option
@_color_option
@_remote_option
def info(*, as_json: bool, color: str) -> None:
    """Show the schedule, the queues, what is running, and dropped platforms.

    \b
    JSON: {schedule: [{next, period, job, kind, platform | opam_package, script}],
           queues: [{platform, jobs: [{job, kind, platform | opam_package}]}],
           running: [{uuid, job, platform, started}], dropped_platforms: [name]}
          next is null for never; kind is "script" or "orb-build"; times are in UTC
    """
    from . import commands
    from .output import standard_output

    commands.info(_remote(), standard_output(color), as_json=as_json)


@cli.command()
@click.argument(
    "build", metavar="[ID]", required=False, callback=_by(words.parse_id), shell_complete=_completes("running")
)
@click.option(
    "--follow-next",
    metavar="JOB",
    shell_complete=_completes("jobs"),
    help="Wait for the next build of JOB to start. It asks for the whole schedule 20 times a second for 30 s, then "
    "once a second; a shorter build may be missed, which is an error where it can be told.",
)
@_exit_status_option
@_json_option
@_remote_option
def observe(build: str | None, follow_next: str | None, *, exit_status: bool, as_json: bool) -> int:
    """Show the console of the build ID from its begin, follow it, and end with its result.

    ID is a uuid, or the begin of one that only one running build has. Each line begins with the time since the start.
    A terminal gets control characters escaped; a pipe or a file gets the bytes of the job.

    \b
    JSON, one object per line:
      {type: "build", uuid, job, platform, started}, unless ID is a whole uuid
      {type: "line", uuid, line, timestamp_ns}, with line_base64 where a line is not UTF-8
      {type: "result", uuid, text, timestamp_ns, result: {kind: "exited", code} |
       {kind: "signalled" | "stopped", signal, name} | {kind: "aborted", message}}

    \b
    Examples:
      builder-client observe 323b
      builder-client observe --follow-next hello --exit-status
    """
    from . import commands
    from .output import standard_output

    if (build is None) == (follow_next is None):
        raise click.UsageError("Give either ID or --follow-next JOB.", click.get_current_context())
    how = commands.Observing(printer=standard_output(), as_json=as_json, exit_status=exit_status)
    if follow_next is not None:
        return commands.follow_next(_remote(), how, job=follow_next)
    return commands.observe(_remote(), how, digits=build or "")


@cli.command("observe-latest")
@click.option("--platform", metavar="PLATFORM", shell_complete=_completes("platforms"), help="Only builds there.")
@click.option("--job", metavar="JOB", shell_complete=_completes("jobs"), help="Only builds of that job.")
@_exit_status_option
@_json_option
@_remote_option
def observe_latest(platform: str | None, job: str | None, *, exit_status: bool, as_json: bool) -> int:
    """Observe the running build that started last; see observe."""
    from . import commands
    from .output import standard_output

    how = commands.Observing(printer=standard_output(), as_json=as_json, exit_status=exit_status)
    return commands.observe_latest(_remote(), how, job=job, platform=platform)


@cli.command("drop-platform")
@click.argument("platform", metavar="PLATFORM", shell_complete=_completes("platforms"))
@_remote_option
def drop_platform(platform: str) -> None:
    """Remove PLATFORM with its queue and its script jobs, and give its workers nothing until it is undropped."""
    from . import commands
    from .output import standard_output

    commands.drop_platform(_remote(), standard_output(), platform=platform)


@cli.command("undrop-platform")
@click.argument("platform", metavar="PLATFORM", shell_complete=_completes("dropped_platforms"))
@_remote_option
def undrop_platform(platform: str) -> None:
    """Let workers of a dropped PLATFORM have jobs again."""
    from . import commands

    commands.undrop_platform(_remote(), platform=platform)


@cli.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def print_completion(shell: str) -> None:
    """Print a script that lets the Tab key complete commands, options, jobs and platforms.

    \b
    Install it for the next shells:
      builder-client completion bash > ~/.local/share/bash-completion/completions/builder-client
      builder-client completion zsh  > ~/.zfunc/_builder-client     (a folder of your $fpath)
      builder-client completion fish > ~/.config/fish/completions/builder-client.fish
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None  # click has all three
    click.echo(complete(cli, {}, PROGRAM, "_BUILDER_CLIENT_COMPLETE").source())


def main() -> NoReturn:
    """Run builder-client."""
    run(cli, PROGRAM)


if __name__ == "__main__":
    main()
