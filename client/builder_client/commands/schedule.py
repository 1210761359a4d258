"""``schedule``: add a script job."""

from typing import BinaryIO

import click

from builder.errors import BuilderError
from builder.messages import MAX_SCRIPT, MIB, Schedule
from builder.model import Period, ScriptJob
from builder_client import options


class ScriptTooLarge(BuilderError):
    """A script of more bytes than a server takes."""

    exit_code = 2


class ScriptEmpty(BuilderError):
    """A script of no bytes, such as of a program that failed to make one: a job of it would always succeed."""

    exit_code = 2


@click.command("schedule")
@options.new_name_argument
@click.argument(
    "platform",
    metavar="PLATFORM",
    callback=options.by(options.name("platform name")),
    shell_complete=options.completes("platforms"),
)
@click.argument("script", metavar="FILE", type=click.File("rb"))
@options.period_option
@options.server_options
def command(name: str, platform: str, script: BinaryIO, period: Period) -> None:
    """Run the script FILE on PLATFORM periodically, first now.

    FILE may be - for standard input. The script is run by its #! line, or by /bin/sh.

    \b
    Examples:
      builder-client schedule hello debian-12 hello.sh
      make-script | builder-client schedule hello debian-12 - --period weekly
    """
    job = ScriptJob(name=name, platform=platform, script=read_script(script))
    options.remote().ask(Schedule(period=period, job=job))


def read_script(file: BinaryIO) -> bytes:
    """Return the script in a file. Raises ScriptTooLarge and ScriptEmpty."""
    content = file.read(MAX_SCRIPT + 1)
    if len(content) > MAX_SCRIPT:
        raise ScriptTooLarge(f"the script has more than {MAX_SCRIPT // MIB} MiB; let it fetch what it needs")
    if not content:
        raise ScriptEmpty("the script is empty")
    return content
