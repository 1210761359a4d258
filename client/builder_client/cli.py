"""The command line of builder-client: what stands before the command."""

# ruff: noqa: D301  the \b in the docstring is the character that makes click keep the lines below it

from typing import NoReturn

import click

from builder import __version__
from builder.runtime.program import run

from . import options
from .registry import LazyGroup

PROGRAM = "builder-client"


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.option(
    "--print-config",
    is_flag=True,
    help="Print which server is meant and what the file, the environment and options before this say, and exit.",
)
@options.server_options
@click.pass_context
def cli(context: click.Context, *, print_config: bool) -> None:
    """Change the schedule of a builder-server, and watch its builds.

    Without a command it prints an overview of the server.

    \b
    Examples:
      builder-client
      builder-client schedule hello debian-12 hello.sh --period weekly
      builder-client info
      builder-client execute hello
      builder-client observe-latest --job hello --exit-status
      builder-client -r build.example.org:1234 observe 323b
      builder-client -s prod info
      export BUILDER_REMOTE=[2001:db8::1]:1234

    \b
    Environment:
      BUILDER_REMOTE  the server, HOST:PORT or unix:PATH, or several with commas between them
      BUILDER_SERVER  the server, by its name in client.toml; BUILDER_REMOTE wins over it
      BUILDER_TLS_CA, BUILDER_TLS_CERT, BUILDER_TLS_KEY, BUILDER_TLS_NAME
                      as the options --tls-ca and so on
      NO_COLOR        no colours, unless --color always is given

    \b
    Files:
      ~/.config/builder/client.toml, or below $XDG_CONFIG_HOME: named servers and defaults of options;
      options win over the environment, that over the file:
        default = "prod"
        color = "never"
        [servers.prod]
        remote = "build.example.org:1234"
        tls-ca = "ca.pem"        paths are taken from the directory of this file
        tls-cert = "ann.pem"
        tls-key = "ann.key"

    \b
    Exit status:
      0 done; 1 other errors, or not confirmed; 2 wrong usage; 3 refused by the server, or no such build;
      4 the server does not follow the protocol; 5 unreachable, or the connection was lost; 6 builds that differ;
      130 interrupted; 141 nobody reads the output; 128 + N ended by the signal N
    """
    if print_config:
        from . import in_force

        for line in in_force.lines(context):
            click.echo(line)
        context.exit()
    if context.invoked_subcommand is None:
        _overview()


def _overview() -> None:
    from . import clock, overview
    from .output import standard_output

    printer = standard_output(options.color())
    remote = options.remote()
    overview.show(printer, overview.ask(remote), name=str(remote), now=clock.now())


def main() -> NoReturn:
    """Run builder-client."""
    run(cli, PROGRAM)


if __name__ == "__main__":
    main()
