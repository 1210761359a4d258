"""Options that every program has that serves."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder import __version__
from builder.address import parse_address
from builder.errors import InvalidAddress

Command = TypeVar("Command", bound=Callable[..., Any])


log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log on standard error. Where that is systemd's journal, text is kept there with fields.",
)


def _read_metrics(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    try:
        return None if value is None else parse_address(value if ":" in value else f"127.0.0.1:{value}")
    except InvalidAddress as error:
        raise click.BadParameter(str(error), context, parameter) from error


metrics_option = click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    callback=_read_metrics,
    help="Serve Prometheus metrics there, on this machine unless HOST says otherwise: /metrics, /healthz and /readyz, to "
    "everyone who can connect.  [default: nowhere]",
)


def serving_options(name: str) -> Callable[[Command], Command]:
    """Add the options of the log, as ``verbose``, ``quiet`` and ``log_format`` (see ``logs.set_up``), and --version."""
    options = (
        click.option("-v", "--verbose", count=True, help="Log more."),
        click.option("-q", "--quiet", count=True, help="Log less; twice: only errors."),
        log_format_option,
        click.version_option(__version__, "-V", "--version", prog_name=name),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def announce(name: str, addresses: list[str]) -> None:
    """Print the first line of a program that serves: where it listens."""
    print(f"{name} {__version__} listening on {', '.join(addresses)}", flush=True)
