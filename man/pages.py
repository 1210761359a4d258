"""The manual pages of all programs and files: ``python man/pages.py DIRECTORY``, or ``make man``."""

import sys
from pathlib import Path

import click
from attrs import fields

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / name) for name in (".", "server", "worker", "client", "web", "provision", "man")]

import builder_client.cli
import builder_client.inspect
import builder_client.jobs
import builder_client.registry
import builder_provision.cli
import builder_server.cli
import builder_web.administration.cli
import builder_web.cli
import builder_worker.cli
import roff
from builder import __version__
from builder.runtime.configuration import key_of, options_of
from builder_client import config
from builder_client import schedule_file as files
from builder_provision import configuration
from roff import FilePage, Key

PROGRAMS: dict[str, click.Command] = {
    "builder-client": builder_client.cli.cli,
    "builder-db": builder_web.administration.cli.command,
    "builder-inspect": builder_client.inspect.cli,
    "builder-provision": builder_provision.cli.command,
    "builder-server": builder_server.cli.command,
    "builder-web": builder_web.cli.command,
    "builder-worker": builder_worker.cli.cli,
}


def client_file() -> FilePage:
    """Return the page of the client's settings."""
    keys = [(key, "") for key in fields(config.ClientSettings)] + [
        (key, "servers.NAME.") for key in fields(config.Server)
    ]
    return FilePage(
        name="builder-client.toml",
        summary="servers by name, and what options of builder-client are by default",
        paths=["~/.config/builder/client.toml", "$XDG_CONFIG_HOME/builder/client.toml"],
        description="""
            The file is TOML, and need not be there. An option of the command line wins over the environment, and that
            over the file.

            Each table [servers.NAME] is a server, which the option --server NAME or the variable BUILDER_SERVER chooses.
            Paths of files are taken from the directory of this one; ~ is the home directory.
            """,
        keys=[
            Key(name=where + config.written(key.name), value=key.metadata["write"], meaning=key.metadata["meaning"])
            for key, where in keys
            if key.metadata
        ],
        example="""
            default = "prod"
            color = "never"

            [servers.prod]
            remote = "build.example.org:1234"
            tls-ca = "ca.pem"
            tls-cert = "ann.pem"
            tls-key = "ann.key"
            """,
    )


def schedule_file() -> FilePage:
    """Return the page of the file that holds a schedule: its keys are options of ``schedule``."""
    command = builder_client.registry.load("schedule")
    context = click.Context(command, info_name="schedule")
    meanings = {
        max(option.opts, key=len).removeprefix("--"): record[1]
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    } | {"paused": builder_client.jobs.PAUSED}
    what = [Key(name=key, value=value, meaning=meaning) for key, (value, meaning) in files.WHAT.items()]
    how = [Key(name=key, value=value, meaning=meanings[key]) for key, value in builder_client.jobs.WRITE.items()]
    return FilePage(
        name="builder-schedule.toml",
        summary="a whole schedule, as builder-client applies it",
        paths=["the file of builder-client apply", "the file schedule.toml that builder-client export writes"],
        description="""
            The file is TOML. Each table [jobs.NAME] is a job; a name that is no word stands in quotes. A job has platform
            and script, or opam-package. All other keys may be missing.

            The command 'builder-client apply FILE' makes the schedule of a server equal to the file, all of it or nothing.
            With --dry-run it shows what would change. Jobs that are not in the file stay, unless --prune is given.

            A job whose name has an @ in it is waited for as "na@me@"; a platform that has one, as
            { job = "lib", platform = "de@bian" }.
            """,
        keys=[*what, *how],
        example="""
            [jobs.lib]
            platform = "debian-12"
            script = "scripts/lib.sh"
            cron = "17 3 * * mon-fri"
            time-zone = "Europe/Copenhagen"
            timeout = "1h30m"

            [jobs.app]
            platform = "debian-12"
            script = "scripts/app.sh"
            period = "never"
            after = ["lib@debian-12"]

            [jobs.retreat]
            opam-package = "retreat"
            period = "weekly"
            spread = true
            """,
    )


def server_file() -> FilePage:
    """Return the page of the server's options in a file."""
    context = builder_server.cli.command.make_context("builder-server", [], resilient_parsing=True)
    keys = [
        Key(name=key_of(option), value=_value(option), meaning=record[1])
        for option in options_of(context.command)
        if (record := option.get_help_record(context))
    ]
    return FilePage(
        name="builder-server.toml",
        summary="options of builder-server",
        paths=["the file of builder-server --config"],
        description="""
            The file is TOML; its keys are the server's options by their long names without the dashes. The command line
            wins over the environment, and that over the file. It is read at the start.

            An option that may be given several times takes one value, or a list.
            """,
        keys=keys,
        example="""
            ip = ["127.0.0.1", "::1"]
            upload = "https://user:password@builds.example.org/upload"
            job-timeout = 7200
            """,
    )


def provision_file() -> FilePage:
    """Return the page of the file that says which workers are asked for."""
    kinds = {
        "": configuration.Fleet,
        "engines.NAME.": configuration.EngineSettings,
        "platforms.NAME.": configuration.PlatformSettings,
    }
    return FilePage(
        name="builder-provision.toml",
        summary="which workers builder-provision asks an engine for",
        paths=["the file of builder-provision"],
        description="""
            The file is TOML. Each table [engines.NAME] is an engine, and each table [platforms.NAME] says what one of these is
            asked for: of all keys only engine must be there. It is read at the start; 'builder-provision --check FILE' reads it,
            and asks each engine which workers it has. Paths of files are taken from the directory of this one.
            """,
        keys=[
            Key(
                name=where + configuration.written(key.name),
                value=key.metadata["write"],
                meaning=key.metadata["meaning"],
            )
            for where, kind in kinds.items()
            for key in fields(kind)
            if key.metadata
        ],
        example="""
            label = "farm"

            [engines.slurm]

            [platforms.debian-12]
            engine = "slurm"
            most = 8
            hours-a-day = 100
            cool-down = "5m"
            has = ["sandbox=bubblewrap", "memory>=4G"]
            features = { kvm = "kvm" }
            most-memory = "256G"
            worker = ["--config=/etc/builder/worker.toml"]
            options = ["--partition=builders"]
            """,
    )


def _value(option: click.Option) -> str:
    """Return what stands for the value of an option in a file."""
    if isinstance(option.type, click.Choice):
        return " or ".join(f'"{choice}"' for choice in option.type.choices)
    if isinstance(option.type, click.FloatRange | click.IntRange):
        return option.metavar or "NUMBER"
    return f'"{option.metavar or option.type.name.upper()}"'


FILES = (client_file(), provision_file(), schedule_file(), server_file())
SECTION = {**dict.fromkeys(PROGRAMS, 1), **{page.name: 5 for page in FILES}}


def pages() -> dict[str, str]:
    """Return all pages by their paths below share/man."""
    made = {
        f"man1/{name}.1": roff.program_page(command, name=name, version=__version__, others=SECTION)
        for name, command in PROGRAMS.items()
    }
    return made | {f"man5/{page.name}.5": page.roff(version=__version__, others=SECTION) for page in FILES}


def write(directory: Path) -> None:
    """Write all pages below a directory."""
    for path, text in pages().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text, "ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
