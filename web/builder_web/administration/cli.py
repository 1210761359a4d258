"""The command line of builder-db."""

import click

from builder import __version__
from builder.runtime import program
from builder.runtime.secrecy import keep_memory_secret
from builder_web.administration.commands import extract, migrate, removing, users, verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="builder-db")
def command() -> None:
    """Look after the data directory of a builder-web.

    \b
    Examples:
      builder-db migrate --datadir /var/lib/builder-web
      echo -n secret | builder-db user-add --unrestricted uploader
      builder-db vacuum except-latest-successful 5
      builder-db verify-data-dir

    All of it may be done while builder-web runs. BUILDER_WEB_DATADIR is the data directory unless --datadir names one.

    \b
    Exit status: 0 done, 1 not done, or faults were found, 2 usage, no database, or one of another schema version,
    5 the database can't be used.
    """


for _each in (
    migrate.command,
    users.add,
    users.update,
    users.remove,
    users.disable,
    users.listed,
    users.access_add,
    users.access_remove,
    removing.job_remove,
    removing.vacuum,
    extract.command,
    verify.input_id,
    verify.data_dir,
    verify.cache_dir,
):
    command.add_command(_each)


def main() -> None:
    """Entry point of the program."""
    keep_memory_secret()  # passwords are set with it
    program.run(command, "builder-db")
