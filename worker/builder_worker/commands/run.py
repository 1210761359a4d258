"""``builder-worker run``: a script as a job, without a server."""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from builder_worker.commands.options import CONTEXT, Arguments, check_platform, sandbox_options

if TYPE_CHECKING:  # imports trio and more
    from builder_worker.trial import Trial


@click.command(context_settings=CONTEXT)
@click.argument("script", type=click.File("rb"))
@click.option("--platform", default="local", callback=check_platform, help="BUILDER_PLATFORM.  [default: local]")
@click.option("--job", metavar="NAME", help="BUILDER_JOB.  [default: the name of the file]")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Keep the artifacts below DIR, which must be empty or new; with --twice in DIR/1 and DIR/2.",
)
@click.option("--twice", is_flag=True, help="Run it twice and compare what it leaves.")
@sandbox_options
@click.option("-q", "--quiet", is_flag=True, help="Do not say which sandbox it is.")
def run(
    *,
    script: BinaryIO,
    platform: str,
    job: str | None,
    output: Path | None,
    twice: bool,
    arguments: Arguments,
    quiet: bool,
) -> int:
    """Run SCRIPT as a worker would run it as a job, without a server: same sandbox, same environment, same limits.

    Prints the console as it comes, the result, and the artifacts with size and SHA-256. SCRIPT may be - for standard
    input. All options about sandboxes are those of a worker; without --sandbox it is auto.

    \b
      builder-worker run job.sh --output out
      builder-worker run job.sh --twice      is the job reproducible?

    \b
    Exit status:
      that of the script; 128 + N if signal N killed it; 124 if a limit ended it
      with --twice 1 if both runs succeeded and left different things
      2 the command line is wrong; 7 there is no sandbox; 130, 143 SIGINT or SIGTERM
    """
    import trio

    from builder.model import ScriptJob, check_name
    from builder.runtime import logs
    from builder_worker import trial

    logs.set_up("builder-worker", verbosity=-quiet, form="text", stamp="builder-worker: ")
    name = job if job is not None else Path(script.name).stem if script.name not in ("-", "<stdin>") else "script"
    check_name(name, what="job name")
    outputs = [output / str(number) for number in (1, 2)] if output and twice else [output] * (2 if twice else 1)
    if output:
        trial.check_output(output)
    setup = arguments.make_setup()
    scheduled = ScriptJob(name=name, platform=platform, script=script.read())

    trials = trio.run(trial.run_trials, scheduled, setup, outputs, _print)
    status = next((status for one in trials if (status := trial.exit_status(one.result))), 0)
    if twice:
        found = list(trial.differences(*trials))
        for line in found:
            click.echo(f"different: {line}")
        if not found:
            click.echo("both runs left the same")
        status = status or (trial.DIFFERENT if found else 0)
    return status


def _print(done: "Trial") -> None:
    from builder.model import describe_result, printable, text

    click.echo(f"{describe_result(done.result)} after {done.seconds:.1f} s")
    for kept in done.artifacts:
        click.echo(f"{kept.sha256}  {kept.size:>12}  {printable(text(kept.path))}")
