"""The command line of builder-server: it parses, and hands over to ``server``."""

import gc
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from builder.address import DEFAULT_PORT, parse_remote
from builder.errors import InvalidAddress, InvalidName
from builder.model import check_name, printable
from builder.quantities import InvalidQuantity, format_duration, parse_duration, parse_pause, parse_size
from builder.runtime import program
from builder.runtime.configuration import CHECK, Configured, configuration_options
from builder.runtime.options import announce, metrics_option, serving_options
from builder.runtime.secrecy import hide_arguments, keep_memory_secret
from builder_server import administration, keys
from builder_server.certificates import certificates
from builder_server.options import check_database, limit_options, limits_of, read_by
from builder_server.retention import Retention, parse_retention
from builder_server.served import NOT_SHARED, Served

ON_FREEBSD = platform.system() == "FreeBSD"
DATA_DIR = "/var/db/builder" if ON_FREEBSD else "/var/lib/builder"
CONFIG_DIR = "/usr/local/etc/builder" if ON_FREEBSD else "/etc/builder"

GARBAGE = 50_000
"""Objects that are made before garbage is looked for. Every look goes over much of what is held, which is more the more
workers wait: with Python's own 700, a command took a third longer beside 900 of them."""

SWITCH = 0.001
"""Seconds after which a thread that computes lets others compute. Each turn of the event loop waits so long for each of
them: with Python's own 5 ms a request that goes through ten turns took a tenth of a second beside two of them."""

JOB_TIMEOUT = 3600.0
"""Seconds that a job may take, as in the original."""

GRACE = "2m"
"""For how long a worker may be away: it has come back seconds after a restart of the server, or of a router between them."""


_FILE = click.Path(dir_okay=False, path_type=Path)


def _check_builder_id(uri: str) -> str:
    """Return what is one: whoever verifies compares it, and SLSA has it be a URI."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", uri):
        raise InvalidQuantity(f"{printable(uri[:100])!r} is no URI such as https://builds.example.org/server")
    return uri


def _check_servers(context: click.Context) -> None:
    """Raise click.UsageError for what is said to other servers where there can be none."""
    given = context.params
    if given["database"] is None and (given["name"] or given["advertise"]):
        raise click.UsageError(NOT_SHARED, context)


def _check_tls(context: click.Context) -> None:
    """Raise click.UsageError for options that say nothing together."""
    given = context.params
    files = {f"--{name.replace('_', '-')}": given[name] for name in ("tls_cert", "tls_key", "tls_client_ca")}
    missing = [option for option, path in files.items() if path is None]
    if missing and len(missing) < len(files):
        raise click.UsageError(f"{missing[0]} is missing: TLS needs {', '.join(files)}", context)
    if missing and (given["tls_crl"] or given["plain_loopback"]):
        raise click.UsageError(f"--tls-crl and --plain-loopback need {', '.join(files)}", context)
    if not missing and given["insecure"]:
        raise click.UsageError("--insecure is for addresses without TLS: leave it out, or --tls-cert", context)


class _Server(Configured, click.Group):
    def faults(self, given: Mapping[str, Any]) -> Iterable[str]:
        """Return all that is wrong with the options."""
        from builder_server import checking

        return checking.faults(given)


def _check_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            check_name(value, what="name of a server")
    except InvalidName as error:
        raise click.BadParameter(str(error), context, parameter) from error
    return value


def _check_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(parse_remote(value))
    except InvalidAddress as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.group(
    cls=_Server,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={
        "auto_envvar_prefix": "BUILDER_SERVER",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="""\b
Examples:
  builder-server --dir ./data --config-dir ./etc
  builder-server --ip 0.0.0.0 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem
  builder-server --upload https://user:password@builds.example.org/upload
  builder-server --config /etc/builder/server.toml --log-format json
  builder-server --config /etc/builder/server.toml check-config
  builder-server --dir ./data backup builder.tar

Without a command it serves. Every option can be set in the file, by its long name without the dashes (job-timeout = 7200), and in the
environment (BUILDER_SERVER_JOB_TIMEOUT=7200). The command line wins over the environment, that over the file.

Uploads heed http_proxy, https_proxy, all_proxy and no_proxy, and SSL_CERT_FILE and SSL_CERT_DIR in place of the
system's trusted certificates; one that can't be used is named at the start.

Templates of orb-build jobs are CONFIG-DIR/orb-build.template.PLATFORM and may change while the server runs; options are
read at the start. A SIGHUP changes nothing, and is only logged.

\b
Exit status: 0 after SIGTERM or SIGINT, 2 usage, 3 can't start (directory in use, address taken),
5 the database can't be used, 6 the original's state file can't be imported, 7 a backup can't be made, or is none,
8 a certificate can't be made, found or revoked, 9 the keys can't be used.""",
)
@configuration_options
@click.option(
    "--ip",
    multiple=True,
    metavar="ADDRESS",
    help="Address or host name to listen on, IPv4 or IPv6; may be given several times. One that others reach needs "
    "--tls-cert, or --insecure.  [default: 127.0.0.1, unless there is --unix, or a socket of the service manager's]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="TCP port; 0 takes a free one.",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    metavar="FILE",
    help="Speak TLS on all addresses, with this certificate, and what leads from it to its authority, in PEM. It is read again "
    "when it changes, and so are the other three.",
)
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The key of --tls-cert.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    metavar="FILE",
    help="Authorities of the certificates that clients and workers must show.",
)
@click.option(
    "--tls-crl",
    type=_FILE,
    metavar="FILE",
    help="Those of them that are revoked: also open connections are closed then.  [default: crl.pem beside "
    "--tls-client-ca, if it is there]",
)
@click.option(
    "--plain-loopback", is_flag=True, help="Speak no TLS on loopback addresses, where no certificate is asked for."
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let whoever reaches the addresses do everything, without TLS; the log warns of it.",
)
@click.option(
    "--unix", type=_FILE, metavar="PATH", help="Listen on a Unix socket, too; no certificate is asked for there."
)
@click.option(
    "--allow-user",
    multiple=True,
    metavar="NAME",
    help="User of this machine who may use the Unix socket, besides the server's own and root; may be given several times.",
)
@click.option(
    "--dir",
    "dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    help="Directory for database, consoles and results.",
)
@click.option(
    "--database",
    callback=check_database,
    metavar="URL",
    help="Keep schedule, queues and history in PostgreSQL, postgresql://USER@HOST/DATABASE, and not below --dir. The password is "
    "found as libpq does: --database-password-file, ~/.pgpass, PGPASSWORD; not on a command line, which others on this "
    "machine can read.",
)
@click.option(
    "--database-password-file",
    type=_FILE,
    metavar="FILE",
    help="The password of --database, in a file.  [default: the systemd credential database-password, if there is one]",
)
@click.option(
    "--name",
    callback=_check_name,
    metavar="NAME",
    help="What this server is called among those on its --database, a name for each.  [default: as before in --dir, or that "
    "of the machine]",
)
@click.option(
    "--advertise",
    callback=_check_address,
    metavar="ADDRESS",
    help="Where the other servers on its --database reach this one, HOST:PORT or unix:PATH.",
)
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=CONFIG_DIR,
    show_default=True,
    help="Directory of the templates.",
)
@click.option(
    "--upload",
    multiple=True,
    metavar="URL",
    help="Post finished executions to this URL, http(s)://user:password@host/upload; may be given several times. Others on "
    "this machine can read a command line until the server has begun: the password is safer in --upload-credentials-file.",
)
@click.option(
    "--upload-credentials-file",
    type=_FILE,
    metavar="FILE",
    help="Take users and passwords for uploads from this file instead of the URLs: a line URL USER PASSWORD for each.  "
    "[default: upload-credentials in $CREDENTIALS_DIRECTORY, a credential of systemd's]",
)
@click.option(
    "--job-timeout",
    callback=read_by(parse_duration),
    default=format_duration(round(JOB_TIMEOUT * 1000)),
    show_default=True,
    metavar="DURATION",
    help="Longest time that a job may take: seconds, or as in 90m or 2h.",
)
@click.option(
    "--min-free",
    callback=read_by(parse_size),
    metavar="SIZE",
    help="Hand out no job while less is free on the disk of --dir.  [default: 1G, or a tenth of a smaller disk]",
)
@click.option(
    "--grace",
    callback=read_by(parse_pause),
    default=GRACE,
    show_default=True,
    metavar="DURATION",
    help="How long a worker may be away from its build, as in 90s or 2m, before another gets the job. A classic worker "
    "can't come back.",
)
@click.option(
    "--keep",
    multiple=True,
    callback=read_by(parse_retention),
    metavar="WHAT",
    help="How long finished builds are kept, and how many: age=90d,count=20,bytes=500G, any of the three. Whatever is "
    "beyond goes, with console, record and history; count is per job. What waits for its upload, or could not be "
    "uploaded, stays.  [default: all]",
)
@metrics_option
@click.option(
    "--builder-id",
    metavar="URI",
    callback=read_by(_check_builder_id),
    help="What this server is called in the provenance that it signs.  [default: urn:builder:server:HOSTNAME]",
)
@limit_options
@serving_options("builder-server")
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    ip: tuple[str, ...],
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_crl: Path | None,
    plain_loopback: bool,
    insecure: bool,
    unix: Path | None,
    allow_user: tuple[str, ...],
    dir: Path,  # noqa: A002 - the option's name, in the file and the environment too
    database: str | None,
    database_password_file: Path | None,
    name: str | None,
    advertise: str | None,
    config_dir: Path,
    upload: tuple[str, ...],
    upload_credentials_file: Path | None,
    job_timeout: float,
    min_free: int | None,
    grace: float,
    keep: Retention,
    metrics: tuple[str, int] | None,
    builder_id: str | None,
    verbose: int,
    quiet: int,
    log_format: str,
    **limits: int,
) -> None:
    """Schedule build jobs and hand them to workers.

    It keeps its schedule, queues and history in a database below --dir, or in PostgreSQL, and serves clients and workers on
    one port.
    The addresses it listens on are the first line on standard output.
    """
    context.obj = served = Served(directory=dir, database=database, password_file=database_password_file, name=name)
    if context.invoked_subcommand is not None:
        return
    _check_tls(context)
    _check_servers(context)
    # imported here, so that --help and a wrong option need not wait for the database library
    import trio

    from builder.runtime import logs
    from builder.runtime.tls import TlsFiles
    from builder_server import credentials, server
    from builder_server.listening import Listening

    if path := upload_credentials_file or credentials.default_path(os.environ):
        upload = credentials.with_credentials(upload, path)
    logs.set_up("builder-server", verbosity=verbose - quiet, form=log_format)
    settings = server.Settings(
        limits=limits_of(limits),
        listening=Listening(
            addresses=ip,
            port=port,
            unix=unix,
            users=allow_user,
            is_insecure=insecure,
            loopback_is_plain=plain_loopback,
        ),
        tls=None
        if tls_cert is None or tls_key is None or tls_client_ca is None
        else TlsFiles(certificate=tls_cert, key=tls_key, ca=tls_client_ca),
        crl=tls_crl,
        data_dir=dir,
        database=served.place(),
        name=name,
        address=advertise,
        config_dir=config_dir,
        upload=upload,
        job_timeout=job_timeout,
        min_free=min_free,
        grace=grace,
        keep=keep,
        metrics=metrics,
        builder_id=builder_id or server.DEFAULT_ID,
    )
    sys.setswitchinterval(SWITCH)
    gc.freeze()  # what was imported is no garbage
    gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])
    trio.run(server.serve, settings, partial(announce, "builder-server"))


@click.command(CHECK)
def check_config() -> None:
    """Say all that is wrong with the options, a line each, without starting.

    It looks at the values in the file, the environment and the command line, at directories, addresses, templates,
    certificates and passwords for uploads. The exit status is 2 if anything is wrong.
    """
    raise AssertionError("it is done where options are parsed, which ends at the first that is wrong otherwise")


for _each in (
    check_config,
    administration.backup,
    administration.restore,
    administration.migrate,
    administration.copy_database,
    administration.forget_server,
    administration.import_,
    certificates,
    keys.keys,
):
    command.add_command(_each)


def main() -> None:
    """Entry point of the program."""
    keep_memory_secret()  # each command may have a key in it, or a password
    hide_arguments()
    program.run(command, "builder-server")
