"""``builder-worker self-test``: whether this release works here, before a worker is restarted."""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

from typing import Any

import click

from builder import __version__
from builder_worker.commands.options import CONTEXT, SLOTS, Arguments, check_platform, sandbox_options
from builder_worker.commands.work import work


@click.command("self-test", context_settings=CONTEXT)
@click.argument("platform", default="self-test", callback=check_platform)
@click.option("--slots", metavar="N", type=SLOTS, default="1", help="As for the worker.  [default: 1]")
@sandbox_options
def self_test(*, platform: str, slots: int | None, arguments: Arguments, **_others: Any) -> None:
    """Do a small build as a worker with the same options would, and see that it can go on with the jobs that run.

    It is for the moment after an upgrade and before the restart, as what is installed by packages does it: it takes any
    option of a worker, touches no server and no other job, and runs none of the commands of --prepare and --finish.

    \b
    Examples:
      builder-worker self-test
      builder-worker self-test --work-dir /var/lib/builder-worker/jobs $BUILDER_WORKER_OPTIONS debian-12

    \b
    Exit status:
      0  it works, and a line says so
      1  the build did not do what it should, or a job that runs would be lost; a line says what to do
      2  the command line is wrong, as it is for the worker then
      7  there is no sandbox
    """
    import trio

    from builder.runtime import logs
    from builder_worker import self_test as tests
    from builder_worker.allowances import Machine, auto_slots

    logs.set_up("builder-worker", verbosity=-1, form="text", stamp="builder-worker: ")
    if slots is None:
        slots = auto_slots(Machine.here(), memory=arguments.memory, cpus=arguments.cpus)
    setup = arguments.make_setup(slots=slots)
    left = tests.check_left(setup.backend.options.work_root)
    trio.run(tests.build, setup, platform)
    known = f"; jobs that run and can be gone on with: {left}" if left else ""
    click.echo(f"builder-worker {__version__} works here, with the sandbox {setup.backend.name}{known}")


# all else that a worker is told does not matter here
_OWN = {parameter.name for parameter in self_test.params}
self_test.params += [parameter for parameter in work.params if parameter.name not in _OWN]
