"""The command line of builder-web: it parses, and hands over to ``server``."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.errors import BuilderError
from builder.quantities import parse_size
from builder.runtime import program
from builder.runtime.configuration import Configured, configuration_options
from builder.runtime.options import announce, metrics_option, serving_options
from builder.runtime.secrecy import keep_memory_secret

if TYPE_CHECKING:
    from builder.provenance.keys import PublicKey
    from builder_web.store.removal import Policy

ON_FREEBSD = platform.system() == "FreeBSD"
DATA_DIR = "/var/db/builder-web" if ON_FREEBSD else "/var/lib/builder-web"
CONFIG_DIR = "/usr/local/etc/builder-web" if ON_FREEBSD else "/etc/builder-web"
PORT = 3000


def _size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _prefix(context: click.Context, parameter: click.Parameter, value: str) -> str:
    prefix = value.rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise click.BadParameter("it must be a path such as /builds", context, parameter)
    return prefix


def _networks(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(item) for item in value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _policy(context: click.Context, parameter: click.Parameter, value: str | None) -> "Policy | None":
    from builder_web import policies  # it needs the database's library

    try:
        return policies.parse(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _keys(path: Path) -> "list[PublicKey]":
    from builder.provenance.keys import InvalidKey, read_public

    try:
        return read_public(path.read_text("ascii", "replace"))
    except OSError as error:
        raise InvalidKey(f"can't read {path}: {error.strerror}") from error
    except InvalidKey as error:
        raise InvalidKey(f"{path}: {error}") from error


class _Site(Configured):
    def faults(self, given: Mapping[str, Any]) -> Iterator[str]:
        """Return what is wrong with the directory, its database, and files of keys."""
        from builder_web.directory import DataDirectory
        from builder_web.errors import NotOurs
        from builder_web.store import opening

        datadir = given["datadir"]
        try:
            if datadir is not None:
                opening.check(DataDirectory(datadir).database)
                if not os.access(datadir, os.R_OK | os.W_OK | os.X_OK):
                    yield f"--datadir: {datadir} can't be written by this user"
        except NotOurs as error:
            yield f"--datadir: {error}"
        for path in given["provenance_keys"] or ():
            try:
                _keys(path)
            except BuilderError as error:
                yield f"--provenance-key: {error}"


@click.command(
    cls=_Site,
    context_settings={"auto_envvar_prefix": "BUILDER_WEB", "help_option_names": ["--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  builder-db migrate --datadir ./data
  echo -n secret | builder-db user-add --datadir ./data --unrestricted uploader
  builder-web --datadir ./data --host 127.0.0.1 --port 3000
  builder-server … --upload http://uploader:secret@127.0.0.1:3000/upload

Every option can be set in the file, by its long name without the dashes (datadir = "/srv/builds"), and in the environment
(BUILDER_WEB_DATADIR=/srv/builds). The command line wins over the environment, that over the file.

Upload hooks are the executables CONFIGDIR/upload-hooks/*.sh, and for failed builds upload-hooks-failed/*.sh. They run in the
background after each upload, each for ten minutes at most; what they say is logged. At a stop those that run are ended,
and those of builds that wait are not run.

\b
Exit status: 0 after SIGTERM or SIGINT, 2 usage, or a database of another schema version, 3 can't start (directory in
use, address taken), 5 the database can't be used.""",
)
@configuration_options
@click.option(
    "-h",
    "--host",
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
    metavar="ADDRESS",
    help="Address or host name to listen on; may be given several times.",
)
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="TCP port; 0 takes a free one."
)
@click.option(
    "-d",
    "--datadir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    help="Directory of the database, the artifacts, scripts and consoles.",
)
@click.option(
    "-c",
    "--configdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=CONFIG_DIR,
    show_default=True,
    help="Directory of the upload hooks.",
)
@click.option(
    "--expired-jobs",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Leave jobs out of the first page that were not built successfully for so long; 0: none.",
)
@click.option(
    "--max-upload",
    default="16G",
    show_default=True,
    metavar="SIZE",
    callback=_size,
    help="Largest upload that is taken, once it is decompressed.",
)
@click.option(
    "--prefix",
    default="",
    metavar="PATH",
    callback=_prefix,
    help="Path below which a proxy has the site, such as /builds; requests may come with it or without.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS|NETWORK",
    callback=_networks,
    help="Believe X-Forwarded-For, -Proto and -Host from there; may be given several times.  [default: from nobody]",
)
@click.option(
    "--provenance-key",
    "provenance_keys",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Public keys of servers, as 'builder-server keys public' prints them: pages say whether what a server has signed "
    "is valid. May be given several times.",
)
@click.option(
    "--vacuum",
    metavar="POLICY",
    callback=_policy,
    help="Remove old builds daily, in the words of builder-db vacuum: 'except-latest-successful 5'.  [default: keep all]",
)
@metrics_option
@serving_options("builder-web")
def command(
    host: tuple[str, ...],
    port: int,
    datadir: Path,
    configdir: Path,
    expired_jobs: int,
    max_upload: int,
    prefix: str,
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...],
    provenance_keys: tuple[Path, ...],
    vacuum: "Policy | None",
    metrics: tuple[str, int] | None,
    verbose: int,
    quiet: int,
    log_format: str,
) -> None:
    """Receive finished builds, keep, compare and show them.

    The addresses it listens on are the first line on standard output.
    """
    # imported here, so that --help and a wrong option need not wait for the libraries
    import trio

    from builder.runtime import logs
    from builder_web.server import Settings, serve

    logs.set_up("builder-web", verbosity=verbose - quiet, form=log_format)
    settings = Settings(
        hosts=host,
        port=port,
        directory=datadir,
        configuration=configdir,
        expired_days=expired_jobs,
        max_upload=max_upload,
        prefix=prefix,
        trusted_proxies=trusted_proxies,
        keys=tuple(key for path in provenance_keys for key in _keys(path)),
        vacuum=vacuum,
        metrics=metrics,
    )
    trio.run(serve, settings, partial(announce, "builder-web"))


def main() -> None:
    """Entry point of the program."""
    keep_memory_secret()  # whoever uploads says a password
    program.run(command, "builder-web")
