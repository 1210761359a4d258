"""The command line of builder-client: what stands before the command."""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

from typing import NoReturn

import click

from builder import __version__
from builder.runtime.program import run

from .options import server_options
from .registry import LazyGroup

PROGRAM = "builder-client"


@click.group(
    cls=LazyGroup,
    no_args_is_help=False,  # a missing command is wrong usage
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@server_options
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


def main() -> NoReturn:
    """Run builder-client."""
    run(cli, PROGRAM)


if __name__ == "__main__":
    main()
