"""The command line of builder-worker."""

import click

from builder import __version__
from builder.runtime import entry, program
from builder.runtime.secrecy import make_no_core_dump
from builder_worker.commands.check import check
from builder_worker.commands.options import CONTEXT
from builder_worker.commands.root import root
from builder_worker.commands.run import run
from builder_worker.commands.self_test import self_test
from builder_worker.commands.work import work
from builder_worker.inheritance import keep_signals_from_jobs


class _DefaultGroup(click.Group):
    """A group whose first command is meant where none is named: ``builder-worker PLATFORM``."""

    default = "work"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-V", "--version")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DefaultGroup, context_settings=CONTEXT)
@click.version_option(__version__, "-V", "--version", prog_name="builder-worker")
def cli() -> None:
    """Take jobs from a builder-server and run them.

    Without the name of a command it is work: builder-worker PLATFORM.
    """
    if click.get_current_context().invoked_subcommand != _DefaultGroup.default:
        entry.release()


for command in (work, run, check, root, self_test):
    cli.add_command(command)


def main() -> None:
    """Entry point of the program."""
    keep_signals_from_jobs()
    make_no_core_dump()  # it has its key of TLS in memory, and what --env gives to jobs
    program.run(cli, "builder-worker")
