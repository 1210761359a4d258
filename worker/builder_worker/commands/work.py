"""``builder-worker PLATFORM``: take jobs from a server."""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

from builder.address import parse_remotes
from builder.endpoint import TLS, Servers, variable
from builder.errors import BuilderError
from builder.needs import check_label
from builder.runtime import program
from builder.runtime.configuration import Configured, configuration_options, options_of
from builder.runtime.options import log_format_option
from builder.sizes import format_size
from builder_worker.commands.options import (
    DURATION,
    PAUSE,
    SIZE,
    SLOTS,
    Arguments,
    check_platform,
    check_worker_name,
    log,
    sandbox_options,
)

_F = TypeVar("_F", bound=Callable[..., Any])


class _DefaultCommand(Configured):
    """The command that is meant where none is named, shown as people write it."""

    def faults(self, given: Mapping[str, Any]) -> Iterator[str]:
        """Return what is wrong with options of which each may be right by itself, and with files and directories."""
        from builder_worker import environment

        try:
            _check_tls(Servers.of(given["remote"] or "127.0.0.1", _tls(given)))
        except (click.UsageError, BuilderError) as error:
            yield error.message if isinstance(error, click.UsageError) else str(error)
        there: dict[str, Any] = {
            str(option.name): () if option.multiple and given[str(option.name)] is None else given[str(option.name)]
            for option in options_of(self)
        }
        arguments = Arguments(**{each.name: there[each.name] for each in Arguments.__attrs_attrs__})
        try:
            arguments.options()
        except BuilderError as error:
            yield str(error)
        for each in arguments.env:
            try:
                environment.parse_variable(each, os.environ)
            except BuilderError as error:
                yield f"--env: {error}"

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program_path = ctx.parent.command_path if ctx.parent else ctx.command_path
        formatter.write_usage(program_path, " ".join(self.collect_usage_pieces(ctx)))


def _each(check: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return what checks each value of an option, so that what is wrong with it names the option."""

    def checked(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            for each in value if parameter.multiple else [value]:
                check(each)
        except BuilderError as error:
            raise click.BadParameter(str(error), context, parameter) from error
        return value

    return checked


def _check_pressure(said: str) -> None:
    from builder_worker.pressure import Thresholds

    Thresholds().with_pressure(said)


def _tls(given: Mapping[str, Any]) -> dict[str, str | None]:
    """Return where the files of TLS are, wherever a worker that comes later is started, and the name."""
    files = {name: given[name.replace("-", "_")] for name in ("tls-ca", "tls-cert", "tls-key")}
    return {name: os.path.abspath(path) if path else None for name, path in files.items()} | {  # noqa: PTH100
        "tls-name": given["tls_name"]
    }


def _tls_option(name: str) -> Callable[[_F], _F]:
    metavar, meaning = TLS[name]
    return click.option(f"--{name}", metavar=metavar, envvar=variable(name), show_envvar=True, help=meaning)


@click.command(
    cls=_DefaultCommand,
    epilog="""\b
Other commands, each with a --help of its own:
  builder-worker run SCRIPT     run a script as a job would be, without a server
  builder-worker check          tell which sandboxes work here, and why others do not
  builder-worker root           make, list and remove root trees
  builder-worker self-test      tell whether this release works here, before a restart after an upgrade
  builder-worker check-config   say all that is wrong with the options, a line each: --config FILE goes before it
A platform with the name of a command: builder-worker work PLATFORM

\b
Signals:
  SIGTERM  end the jobs, or with --drain-timeout let them end within that time; then exit
  SIGHUP   take no more jobs, let the running ones end, however long they take, and exit
  SIGINT   end the jobs and exit
  SIGUSR1  leave the jobs to their supervisors, for the next worker, and exit; so does SIGKILL

\b
Exit status:
  0  the results were delivered, whatever they were; or SIGTERM, and all jobs ended in time; or SIGHUP or SIGUSR1;
     or there was no job for the time of --wait
  2  the command line is wrong
  3  the server is unreachable
  4  the server refused, or is no builder-server
  5  the server went away before it had the result, or ended the job
  7  there is no sandbox, or the job could not be given a place to run
  130, 143  SIGINT or SIGTERM ended the worker, and its jobs with it
""",
)
@click.argument("platform", callback=check_platform)
@configuration_options
@click.option(
    "-r",
    "--remote",
    metavar="ADDRESS",
    default="127.0.0.1:1234",
    callback=_each(parse_remotes),
    envvar="BUILDER_REMOTE",
    show_default=True,
    show_envvar=True,
    help="The server: HOST:PORT, with an IPv6 address in brackets, or unix:PATH for its socket on this machine. Several with "
    "commas between them are tried in any order until one answers, and again when that goes away.",
)
@_tls_option("tls-ca")
@_tls_option("tls-cert")
@_tls_option("tls-key")
@_tls_option("tls-name")
@click.option("--loop", is_flag=True, help="Take the next job after each, and wait for the server while it is away.")
@click.option(
    "--wait",
    metavar="TIME",
    type=DURATION,
    help="Exit, with status 0, when there was no job for so long; each of several slots for itself.  [default: wait for ever]",
)
@click.option(
    "--slots",
    metavar="N",
    type=SLOTS,
    default="1",
    help="Jobs at once, each with a connection; auto: one for every 4 cores and 4G of memory (--cpus and --memory, if they are "
    "given), whichever are fewer, from 1 to 64.  [default: 1]",
)
@click.option(
    "--drain-timeout",
    metavar="TIME",
    type=PAUSE,
    default="0",
    help="On SIGTERM take no more jobs, and kill those that run only then.  [default: 0, at once]",
)
@click.option(
    "--reconnect-for",
    metavar="TIME",
    type=PAUSE,
    default="15m",
    help="Let a job go on for so long while the server is away, or while there is no worker: the next one for the platform "
    "adopts it. What it has written is delivered after that, and a result is kept until it is. A server of the original's protocol ends the job when it goes away.  [default: 15m]",
)
@click.option(
    "--name",
    metavar="NAME",
    callback=check_worker_name,
    help="What the server calls this worker.  [default: the machine's name]",
)
@click.option(
    "--label",
    metavar="NAME",
    multiple=True,
    callback=_each(check_label),
    help="Say that this worker has what jobs may need by that name, such as gpu or big-disk. Repeat.",
)
@click.option(
    "--min-free",
    metavar="SIZE",
    type=SIZE,
    help="Take no job with less free on the disk of --work-dir.  [default: 1G, or a tenth of a small disk]",
)
@click.option(
    "--min-memory",
    metavar="SIZE",
    type=SIZE,
    help="Take no job with less memory available.  [default: 512M, or a twentieth of a small machine]",
)
@click.option(
    "--max-pressure",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_each(_check_pressure),
    help="Take no job while, in the last minute, all programs stood still for want of memory=PERCENT of the time, or for the "
    "disk, io=PERCENT, or one had to wait for a CPU, cpu=PERCENT; where the kernel does not tell, with a load=NUMBER of each "
    "core; none is any. What this worker's own jobs do to disk and CPUs does not count. Repeat.  "
    "[default: memory=20, io=90, cpu=none, load=16]",
)
@sandbox_options
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong.")
@log_format_option
def work(
    *,
    platform: str,
    remote: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_name: str | None,
    loop: bool,
    wait: float | None,
    slots: int | None,
    drain_timeout: float,
    reconnect_for: float,
    name: str,
    label: tuple[str, ...],
    min_free: int | None,
    min_memory: int | None,
    max_pressure: tuple[str, ...],
    arguments: Arguments,
    quiet: bool,
    log_format: str,
) -> None:
    """Take a job for PLATFORM from the server, run it, deliver its result, and exit.

    Each job runs in a fresh sandbox that it can't leave, outlive or exhaust: without --sandbox, in the best that works
    here. Where none works the worker refuses to start. Inside of a container or jail it is different: there a worker
    for one job, without --loop, uses no sandbox of its own, and one with --loop does without if none works.

    WITHOUT A SANDBOX THE JOB IS NOT CONFINED: it runs with all rights of this worker, can read and change what the
    worker can, and use the network. With --sandbox none, run builder-worker in a jail or a container that is made for
    one job, as an ordinary user, and throw it away afterwards.

    The script is run by its #! line, or by /bin/sh, in a fresh directory. BUILDER_JOB, BUILDER_PLATFORM and
    BUILDER_UUID tell it what it is. Every file that it leaves in the directory is delivered; all its processes are
    killed at its end. When the server or the worker goes away it runs on for the time of --reconnect-for. It may tighten
    its limits by a line near its top, such as

    \b
        # builder: memory=512M timeout=10m

    Sizes are such as 512M or 2G, times such as 90s, 10m or 2h. A limit that was asked for and can't be enforced here
    is an error; the defaults hold where they can.
    """
    with program.importing():
        import trio

        from builder.runtime import logs
        from builder_worker import dial, facts, session
        from builder_worker.allowances import Machine, auto_slots
        from builder_worker.guard import Guard
        from builder_worker.loop import Duration
        from builder_worker.loop import work as run
        from builder_worker.pressure import Thresholds

    # it takes a tenth of a second, and finding a sandbox waits for other programs
    threading.Thread(target=dial.load, daemon=True).start()
    logs.set_up("builder-worker", verbosity=-quiet, form=log_format, stamp="builder-worker: ")
    servers = Servers.of(
        remote, _tls({"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key, "tls_name": tls_name})
    )
    _check_tls(servers)
    labels = facts.parse_labels(label)
    thresholds = functools.reduce(
        Thresholds.with_pressure, max_pressure, Thresholds(min_free=min_free, min_memory=min_memory)
    )
    if slots is None:
        machine = Machine.here()
        slots = auto_slots(machine, memory=arguments.memory, cpus=arguments.cpus)
        log.info("--slots auto: %d, of %g CPUs and %s of memory", slots, machine.cpus, format_size(machine.memory))
    setup = arguments.make_setup(one_job=not loop and slots == 1, slots=slots)
    duration = Duration(loop=loop, slots=slots, drain_timeout=drain_timeout)
    settings = session.WorkerSettings(
        servers=servers,
        platform=platform,
        setup=setup,
        name=name,
        reconnect_for=reconnect_for,
        wait=wait,
        facts=facts.lasting(setup.backend, setup.limits, slots=slots, labels=labels),
        guard=Guard.of(thresholds, setup.backend.options.work_root),
    )
    trio.run(run, settings, duration)


def _check_tls(servers: Servers) -> None:
    """See that there are the files that TLS needs: a wrong path stays wrong. Raises click.UsageError."""
    if server := next((each for each in servers.all if each.tls), None):
        from builder.runtime import reaching
        from builder.runtime.tls import InvalidCredentials

        try:
            reaching.context_of(server)
        except InvalidCredentials as error:
            raise click.UsageError(str(error)) from error
