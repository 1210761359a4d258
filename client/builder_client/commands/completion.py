"""``completion``: what a shell needs for its Tab key."""

import click
from click.shell_completion import get_completion_class

from builder_client.output import standard_output


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that lets the Tab key complete names.

    It completes commands, options, jobs, platforms and running builds.

    \b
    Install it for the next shells:
      builder-client completion bash > ~/.local/share/bash-completion/completions/builder-client
      builder-client completion zsh  > ~/.zfunc/_builder-client     (a folder of your $fpath)
      builder-client completion fish > ~/.config/fish/completions/builder-client.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None  # click has all three
    program = context.find_root().command
    source = complete(program, {}, "builder-client", "_BUILDER_CLIENT_COMPLETE").source()
    standard_output().line(source)
