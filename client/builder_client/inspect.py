"""builder-inspect: what is in the file of an execution, read as a stream.

What is to be shown waits in temporary files until the whole file has been read and found undamaged, so that memory
grows neither with the console nor with the artifacts.
"""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

from functools import partial
from typing import NoReturn

import click

from builder import __version__
from builder.runtime.program import run, tell

PROGRAM = "builder-inspect"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--job", is_flag=True, help="Print job, platform and uuid.")
@click.option("--script", is_flag=True, help="Print the script, exactly.")
@click.option("--console", is_flag=True, help="Print the console, oldest line first.")
@click.option("--times", is_flag=True, help="Begin each console line with the time since the start.")
@click.option("--output", metavar="DIR", type=click.Path(file_okay=False), help="Write the artifacts below DIR.")
@click.option("--force", is_flag=True, help="Let --output replace files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli(
    files: tuple[str, ...],
    *,
    job: bool,
    script: bool,
    console: bool,
    times: bool,
    output: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Show executions: the files DIR/JOB/UUID/full that builder-server stores. FILE may be - for standard input.

    Without options it prints a summary with the artifacts' SHA-256 and sizes. --output prints it too, and writes only
    below DIR, with several files below DIR/UUID: an artifact whose path would lead elsewhere, or whose file exists
    already, is named and left out. Of several files, each is named, and one that can't be shown does not hide the
    others.

    \b
    JSON, an object for each file:
    {file, job, platform, uuid, started, finished, duration_ms, result, text, script_size, console_lines,
      script: with --script, console: [{line, timestamp_ns}] with --console,
      artifacts: [{path, size, sha256, and with --output not_written: null or why}]}
      result as of builder-client observe; KEY_base64 beside what is not UTF-8
    {file, error} for one that can't be shown

    \b
    Exit status:
      0 done; 1 other errors, or artifacts that were not written; 2 wrong usage, or no such file;
      4 a file is damaged or no execution; of several files, the highest
    """
    from . import inspection
    from .output import standard_output

    wanted = inspection.Wanted(job=job, script=script, console=console, times=times, as_json=as_json)
    return inspection.inspect(files, wanted, standard_output(), partial(tell, PROGRAM), output=output, force=force)


def main() -> NoReturn:
    """Run builder-inspect."""
    run(cli, PROGRAM)


if __name__ == "__main__":
    main()
