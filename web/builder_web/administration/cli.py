"""The command line of builder-db."""

import click

from builder import __version__
from builder.runtime import program
from builder_web.administration.migrate import migrate
from builder_web.administration.users import access_add, user_add


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="builder-db")
def command() -> None:
    """Look after the data directory of a builder-web."""


for one in (migrate, user_add, access_add):
    command.add_command(one)


def main() -> None:
    """Entry point of the program."""
    program.run(command, "builder-db")
