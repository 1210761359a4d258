"""The command line of builder-provision: it parses, and hands over to ``service``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder import __version__
from builder.endpoint import TLS, Servers, variable
from builder.runtime import program
from builder.runtime.options import metrics_option, serving_options

if TYPE_CHECKING:
    from builder_provision.configuration import Fleet

STATE = "/var/lib/builder-provision"

_F = TypeVar("_F", bound=Callable[..., Any])


def _tls_option(name: str) -> Callable[[_F], _F]:
    metavar, meaning = TLS[name]
    return click.option(f"--{name}", metavar=metavar, envvar=variable(name), show_envvar=True, help=meaning)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  builder-provision --check /etc/builder/provision.toml
  builder-provision -r builds.example.org:1234 /etc/builder/provision.toml
  builder-client queue                          says what was asked for, and how far that is

\b
A FILE that asks Slurm for up to 8 workers at once, each for one job, for no more than 100 hours a day:
  [engines.slurm]
  [platforms.debian-12]
  engine = "slurm"
  most = 8
  hours-a-day = 100
  worker = ["--config=/etc/builder/worker.toml"]
  options = ["--partition=builders"]

\b
Exit status:
  0  after SIGTERM or SIGINT: workers that were asked for stay, and the next start finds them again
  2  the command line or FILE is wrong
  3  with --check, an engine does not answer; another builder-provision has the directory of --state""",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option(
    "-r",
    "--remote",
    metavar="ADDRESS",
    default="127.0.0.1:1234",
    envvar="BUILDER_REMOTE",
    show_default=True,
    show_envvar=True,
    help="The server: HOST:PORT, with an IPv6 address in brackets, or unix:PATH for its socket on this machine. Several with "
    "commas between them are tried in any order until one answers.",
)
@_tls_option("tls-ca")
@_tls_option("tls-cert")
@_tls_option("tls-key")
@_tls_option("tls-name")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=STATE,
    show_default=True,
    metavar="DIR",
    help="Directory for what has to be remembered: the hours that were used today, and whom an engine does not know.",
)
@click.option("--check", is_flag=True, help="Read FILE, ask each engine which workers it has, and exit.")
@metrics_option
@serving_options("builder-provision")
def command(
    *,
    file: Path,
    remote: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_name: str | None,
    state: Path,
    check: bool,
    metrics: tuple[str, int] | None,
    verbose: int,
    quiet: int,
    log_format: str,
) -> None:
    """Ask an engine for workers of one job each, as many as the queues have work for.

    FILE says which engine is asked for the workers of each platform, and how many there may be: see builder-provision.toml(5).
    An engine is Slurm, Kubernetes, or three commands of your own. Each worker is asked for with what a job needs that waits:
    memory, cores, features. It takes any job that it can, and goes after it, or when there is none.

    Workers that stand anyway come first. What was asked for and is not needed any more is given up, and so is what hangs. An
    engine that refuses is asked again later.
    """
    import trio  # imported here, so that --help and a wrong option need not wait for the libraries

    from builder.runtime import logs
    from builder_provision.configuration import read
    from builder_provision.service import Settings, serve

    logs.set_up("builder-provision", verbosity=verbose - quiet, form=log_format)
    fleet = read(file)
    if check:
        trio.run(_check, fleet)
        return
    tls = {"tls-ca": tls_ca, "tls-cert": tls_cert, "tls-key": tls_key, "tls-name": tls_name}
    servers = Servers.of(remote, tls)
    settings = Settings(servers=servers, fleet=fleet, directory=state, metrics=metrics)

    def announce(platforms: list[str]) -> None:
        print(f"builder-provision {__version__} asks for workers of {', '.join(platforms)}", flush=True)

    trio.run(serve, settings, announce)


async def _check(fleet: "Fleet") -> None:
    """Say which workers each engine has. Raises EngineFailed."""
    from builder.model import printable
    from builder_provision.service import open_engine

    for name, settings in fleet.engines.items():
        listed = await open_engine(settings, fleet.label).list(())
        print(f"{printable(name)}: {len(listed)} workers that were asked for")


def main() -> None:
    """Entry point of the program."""
    program.run(command, "builder-provision")
