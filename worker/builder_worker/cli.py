"""The command line of builder-worker."""

import logging
import os
import tempfile
from pathlib import Path

import click

from builder import __version__, program
from builder.errors import InvalidName


class _DefaultGroup(click.Group):
    """A group whose first command is meant where none is named: ``builder-worker PLATFORM``."""

    default = "work"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-V", "--version")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


class _DefaultCommand(click.Command):
    """The command that is meant where none is named, shown as people write it."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program_path = ctx.parent.command_path if ctx.parent else ctx.command_path
        formatter.write_usage(program_path, " ".join(self.collect_usage_pieces(ctx)))


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_DefaultGroup, context_settings=_CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="builder-worker")
def cli() -> None:
    """Take jobs from a builder-server and run them."""


def _check_platform(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    from builder.model import check_name

    try:
        check_name(value, what="platform")
    except InvalidName as error:
        raise click.BadParameter(str(error)) from error
    return value


@cli.command(
    cls=_DefaultCommand,
    epilog="""\b
Exit status:
  0  the result was delivered, whatever it was
  2  the command line is wrong
  3  the server is unreachable
  4  the server refused, or is no builder-server
  5  the server went away before it had the result
  7  the job could not be given a place to run
  130, 143  SIGINT or SIGTERM ended the worker, and the job with it
""",
)
@click.argument("platform", callback=_check_platform)
@click.option(
    "-r",
    "--remote",
    metavar="HOST:PORT",
    default="127.0.0.1:1234",
    envvar="BUILDER_REMOTE",
    show_default=True,
    show_envvar=True,
    help="The server. An IPv6 address is written in brackets.",
)
@click.option("--loop", is_flag=True, help="Take the next job after each, and wait for the server while it is away.")
@click.option("--dotfiles", is_flag=True, help="Deliver files too whose path has a part that begins with a dot.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End a job that takes longer."
)
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=tempfile.gettempdir,
    metavar="DIR",
    help="Where the jobs' own directories are made.  [default: the system's for temporary files]",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Give a variable to the job, with the worker's own value if there is none here. May be repeated.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
def work(
    *,
    platform: str,
    remote: str,
    loop: bool,
    dotfiles: bool,
    timeout: float | None,
    work_dir: Path,
    variables: tuple[str, ...],
    quiet: bool,
) -> None:
    """Take a job for PLATFORM from the server, run it, deliver its result, and exit.

    THE JOB IS NOT CONFINED: it runs with all rights of this worker, can read and change what the worker can, and use
    the network. Run builder-worker in a jail or a container that is made for one job, as an ordinary user, and throw
    it away afterwards.

    The script is run by its #! line, or by /bin/sh, in a fresh directory. Of its environment it gets PATH, HOME and
    proxies from this worker, and BUILDER_JOB, BUILDER_PLATFORM and BUILDER_UUID. Every file that it leaves in the
    directory is delivered; all its processes are killed at its end, and when the server goes away.
    """
    import trio

    from builder.address import parse_address
    from builder_worker.artifacts import Rules
    from builder_worker.environment import parse_variable
    from builder_worker.loop import work as run
    from builder_worker.sandbox import Limits, SandboxError
    from builder_worker.sandbox.none import NoSandbox
    from builder_worker.session import Settings

    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="builder-worker: %(message)s")
    host, port = parse_address(remote)
    backend = NoSandbox(directory=work_dir)
    check = backend.check()
    if not check.works:
        raise SandboxError(f"{check.reason}; {check.remedy}")
    settings = Settings(
        host=host,
        port=port,
        platform=platform,
        backend=backend,
        limits=Limits(timeout=timeout),
        artifact_rules=Rules(dotfiles=dotfiles),
        variables=dict(parse_variable(variable, os.environ) for variable in variables),
    )
    trio.run(lambda: run(settings, loop=loop))


def main() -> None:
    """Entry point of the program."""
    program.run(cli, "builder-worker")
