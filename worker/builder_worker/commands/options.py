"""Options that subcommands share: the sandbox, what is shown to jobs, and what they may use."""

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from attrs import evolve, frozen

from builder import quantities
from builder.errors import InvalidName
from builder.quantities import InvalidQuantity
from builder.sizes import format_size

if TYPE_CHECKING:  # imports trio and more
    from builder_worker.build import Setup
    from builder_worker.sandbox import Limits
    from builder_worker.sandbox.options import Options

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

log = logging.getLogger("builder_worker")

_F = TypeVar("_F", bound=Callable[..., Any])


def _quantity(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the type of an option whose value is a size, duration or number in words."""

    def convert(value: str) -> Any:
        try:
            return parse(value)
        except InvalidQuantity as error:
            raise click.BadParameter(str(error)) from error

    return convert


SIZE = _quantity(quantities.parse_size)
DURATION = _quantity(quantities.parse_duration)
PAUSE = _quantity(quantities.parse_pause)
COUNT = _quantity(quantities.parse_count)
CPUS = _quantity(quantities.parse_cpus)


def _slots(value: str) -> int | None:
    return None if value == "auto" else COUNT(value)


SLOTS = _slots
"""The type of an option whose value is a number of slots, None for auto."""


@frozen(kw_only=True)
class Arguments:
    """The values of the shared options, as they were given."""

    sandbox: str | None
    root: Path | None
    image: str | None
    network: bool
    bind: tuple[str, ...]
    cache: tuple[str, ...]
    device: tuple[str, ...]
    env: tuple[str, ...]
    work_dir: Path | None
    dotfiles: bool
    prepare: str | None
    finish: str | None
    hook_timeout: float
    timeout: float | None
    max_silent: float | None
    memory: int | None
    pids: int | None
    cpus: float | None
    work_size: int | None
    shm_size: int | None
    max_console: int | None
    max_artifact_bytes: int | None
    max_artifacts: int | None

    def options(self) -> "Options":
        """Return the options of the back ends. Raises OptionError or InvalidName."""
        from builder_worker.sandbox.options import Bind, Cache, Options, parse_device

        return place(
            Options(
                root=self.root.absolute() if self.root else None,
                image=self.image,
                network=self.network,
                binds=tuple(map(Bind.parse, self.bind)),
                caches=tuple(map(Cache.parse, self.cache)),
                devices=tuple(map(parse_device, self.device)),
            ),
            self.work_dir,
        )

    def limits(self) -> "Limits":
        """Return the limits that were asked for."""
        from builder_worker.allowances import PARSERS
        from builder_worker.sandbox import Limits

        return Limits(**{name: getattr(self, name) for name in PARSERS})

    def make_setup(self, *, one_job: bool = False, slots: int = 1) -> "Setup":
        """Choose the sandbox, tell what must be told about it, and return all that is to be known about jobs.

        Raises SandboxError, and for usage OptionError, InvalidName and InvalidVariable.
        """
        from builder_worker import containment, environment
        from builder_worker.allowances import Machine, allot
        from builder_worker.build import Setup
        from builder_worker.choice import choose, default_date, warning
        from builder_worker.hooks import Hooks
        from builder_worker.sandbox import roots
        from builder_worker.sandbox.linux import cgroups
        from builder_worker.sandbox.processes import rlimits

        for line in rlimits.settle():
            log.warning("%s", line)
        given = dict(environment.parse_variable(variable, os.environ) for variable in self.env)
        options = self.options()
        container = containment.find()
        if options.root:
            roots.hold(options.root)
        cgroups.find().settle()
        choice = choose(self.sandbox, options, one_job=one_job, container=container)
        if choice.reason:
            log.info("%s", choice.reason)
        if text := warning(choice, container=container):
            log.warning("%s", text)
        machine = Machine.here()
        limits = allot(self.limits(), slots=slots, real=choice.real, machine=machine)
        if limits.memory != self.memory and self.memory is not None:
            there_is = format_size(machine.memory)
            log.warning("--memory is %s, since this worker may use no more itself", there_is)
        if limits.cpus != self.cpus and self.cpus is not None:
            log.warning("--cpus is %g, since this worker may use no more itself", machine.cpus)
        inherited = {} if choice.is_sandbox else environment.inherited(os.environ)
        return Setup(
            backend=choice.backend,
            limits=limits,
            real=choice.real,
            dotfiles=self.dotfiles,
            given={**inherited, **given},
            date=default_date(options) if choice.is_sandbox else None,
            hooks=Hooks(prepare=self.prepare, finish=self.finish, timeout=self.hook_timeout),
            shown=(
                options.work_root / "job",
                *([options.root / "usr"] if options.root else []),
                *(bind.source for bind in options.binds),
            ),
        )


def _paths(**more: Any) -> Any:
    return click.Path(path_type=Path, file_okay=False, **more)


_SANDBOX_OPTIONS = (
    click.option(
        "--sandbox",
        metavar="NAME",
        envvar="BUILDER_SANDBOX",
        show_envvar=True,
        help="What jobs run in: bubblewrap, podman, overlay, jail (FreeBSD, where it has not run yet), none, "
        "or auto for the best that works here. `builder-worker check` tells what does.  [default: see above]",
    ),
    click.option(
        "--root", metavar="DIR", type=_paths(exists=True), help="Show jobs this root tree instead of the host's /usr."
    ),
    click.option(
        "--image",
        metavar="IMAGE",
        help="Run jobs in this container image, which podman has already; with --sandbox jail, on FreeBSD, in a clone of "
        "this zfs snapshot.",
    ),
    click.option("--network", is_flag=True, help="Let jobs use the network."),
    click.option("--bind", metavar="SRC:DST[:rw]", multiple=True, help="Show jobs SRC of this machine at DST. Repeat."),
    click.option(
        "--cache",
        metavar="NAME:DST",
        multiple=True,
        help="Show jobs at DST a directory that all jobs of the platform can write to and that stays. Repeat.",
    ),
    click.option(
        "--device",
        metavar="PATH",
        multiple=True,
        help="Let jobs use this device of the machine, such as /dev/kvm. Repeat.",
    ),
    click.option(
        "--env",
        metavar="NAME[=VALUE]",
        multiple=True,
        help="Give a variable to jobs, with the worker's own value if there is none here. Repeat.",
    ),
    click.option(
        "--work-dir",
        metavar="DIR",
        type=_paths(),
        help="Where the jobs' own directories are made: on a disk not mounted noexec, in a directory that every user may "
        "pass through."
        "  [default: /var/tmp/builder-worker-UID]",
    ),
    click.option("--dotfiles", is_flag=True, help="Take files too whose path has a part that begins with a dot."),
    click.option("--prepare", metavar="CMD", help="Run a command before each job, outside of its sandbox."),
    click.option("--finish", metavar="CMD", help="Run a command after each job, in any case."),
    click.option(
        "--hook-timeout", metavar="TIME", type=DURATION, default="1m", help="End those commands then.  [default: 1m]"
    ),
    click.option("--timeout", metavar="TIME", type=DURATION, help="End a job that takes longer.  [default: never]"),
    click.option("--max-silent", metavar="TIME", type=DURATION, help="End a job without output.  [default: never]"),
    click.option(
        "--memory",
        metavar="SIZE",
        type=SIZE,
        help="Memory of a job.  [default: 90 % of the machine's, divided by slots]",
    ),
    click.option("--pids", metavar="N", type=COUNT, help="Processes and threads of a job.  [default: 4096]"),
    click.option("--cpus", metavar="N", type=CPUS, help="CPUs of a job.  [default: all, divided by slots]"),
    click.option(
        "--shm-size",
        metavar="SIZE",
        type=SIZE,
        help="Size of a job's /dev/shm; what is in it counts as memory.  [default: 64M]",
    ),
    click.option(
        "--work-size",
        metavar="SIZE",
        type=SIZE,
        help="All that a job writes to disk.  [default: the disk, but for a reserve]",
    ),
    click.option("--max-console", metavar="SIZE", type=SIZE, help="Output of a job.  [default: 2G]"),
    click.option(
        "--max-artifact-bytes",
        metavar="SIZE",
        type=SIZE,
        help="Artifacts of a job.  [default: 64G, or --work-size if that is less]",
    ),
    click.option("--max-artifacts", metavar="N", type=COUNT, help="Number of artifacts.  [default: 100000]"),
)


def sandbox_options(command: _F) -> _F:
    """Add the shared options to a command, which gets all of them as ``arguments``."""
    names = Arguments.__attrs_attrs__

    @functools.wraps(command)
    def with_arguments(**given: Any) -> Any:
        arguments = Arguments(**{field.name: given.pop(field.name) for field in names})
        return command(arguments=arguments, **given)

    decorated: Any = with_arguments
    for add in reversed(_SANDBOX_OPTIONS):
        decorated = add(decorated)
    return cast("_F", decorated)


def place(options: "Options", work_dir: Path | None) -> "Options":
    """Return options with the directory for jobs that was given, if one was. Raises SandboxError."""
    from builder_worker.sandbox import SandboxError

    if work_dir is None:
        return options
    path = work_dir.absolute()
    if not path.parent.is_dir():  # a typo must not make a tree of directories
        raise SandboxError(f"{path.parent} is no directory: create it, or name another one with --work-dir")
    return evolve(options, work_root=path)


def check_platform(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Return the name of a platform, checked."""
    from builder.model import check_name

    try:
        check_name(value, what="platform")
    except InvalidName as error:
        raise click.BadParameter(str(error)) from error
    return value


def check_worker_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Return the name of the worker, checked: the machine's if there is none."""
    from builder.model import check_name

    name = os.uname().nodename or "worker" if value is None else value
    try:
        check_name(name, what="worker name")
    except InvalidName as error:
        raise click.BadParameter(str(error)) from error
    return name
