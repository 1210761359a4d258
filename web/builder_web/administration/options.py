"""Options that all commands have."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_DATA_DIR = "/var/db/builder-web" if platform.system() == "FreeBSD" else "/var/lib/builder-web"

datadir: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-d",
    "--datadir",
    envvar="BUILDER_WEB_DATADIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DATA_DIR,
    show_default=True,
    show_envvar=True,
    help="Data directory of builder-web.",
)
