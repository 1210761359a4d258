"""builder-inspect: what is in the file of an execution, read as a stream.

What is to be shown waits in temporary files until the whole file has been read and found undamaged, so that memory
grows neither with the console nor with the artifacts.
"""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import click

from builder import __version__
from builder.runtime.program import run, tell

PROGRAM = "builder-inspect"


class _Inspect(click.Group):
    """Shows executions, unless the first argument is the name of a command."""

    allow_interspersed_args = True
    parse_args = click.Command.parse_args
    invoke = click.Command.invoke
    collect_usage_pieces = click.Command.collect_usage_pieces

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **rest: Any) -> Any:  # type: ignore[override]
        """Run it, or the command."""
        given = list(sys.argv[1:] if args is None else args)
        if given and (command := self.commands.get(given[0])):
            return command.main(given[1:], f"{prog_name} {given[0]}", **rest)
        return super().main(given, prog_name, **rest)


@click.group(
    cls=_Inspect,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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

    The first argument may be the command that holds artifacts against what a server has signed: a file of that name is
    ./verify.

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


@cli.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("named", metavar="PROVENANCE", type=click.Path())
@click.argument("artifacts", required=False, type=click.Path())
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Public keys, as 'builder-server keys public' prints them; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay as they are.")
def verify(named: str, artifacts: str | None, *, keys: tuple[str, ...], as_json: bool) -> None:
    """Hold artifacts against what a server has signed of their build, without any server.

    PROVENANCE is the file that 'builder-client fetch' writes, or provenance.json of the server, or the directory in which
    that is. ARTIFACTS is a directory or an execution, by default what PROVENANCE lies beside. All that is there must be as
    it was signed, and nothing else may be there. The console of an execution is not signed.

    \b
    JSON, one object:
    {signature: "valid", keys, builder, job, platform, uuid, started, finished, artifacts: how many there are, as_signed,
      record: what of an execution differs, differs: [{path}], missing: [{path}], extra: [{path}]}
    {signature: "invalid", "unknown key" or "outside of the key's validity", keys}

    \b
    Exit status:
      0 all is as it was signed; 1 something differs, is missing, or is there besides; 2 wrong usage, no such file or no
      keys; 4 PROVENANCE or an execution is damaged; 5 no valid signature of the keys given

    \b
    Examples:
      builder-inspect verify /tmp/hello --key builder.pub
      builder-inspect verify provenance.json full --key builder.pub
    """
    from . import verification
    from .output import standard_output

    verification.check(named, artifacts, keys, standard_output(), as_json=as_json)


def main() -> NoReturn:
    """Run builder-inspect."""
    run(cli, PROGRAM)


if __name__ == "__main__":
    main()
