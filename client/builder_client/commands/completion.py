"""``completion``: what a shell needs for its Tab key."""

import click
from click.shell_completion import get_completion_class

from builder_client.output import standard_output

_BASH = """\
_builder_client_completion() {
    # Of a word with one of these characters bash replaces what is behind the last, an @ included.
    local line=${COMP_LINE:0:COMP_POINT} IFS=$'\\n' completion type value
    local word=${line##*[[:space:]]}
    local kept=${word%"${word##*[:=]}"}
    [[ ${word#"$kept"} != *@* ]] || kept=${word%@*}
    [[ $COMP_WORDBREAKS == *:* ]] || kept=
    for completion in $(COMP_WORDS=$line COMP_CWORD=$word _BUILDER_CLIENT_COMPLETE=fish_complete "$1" 2>/dev/null); do
        type=${completion%%,*} value=${completion#*,}
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) value=${value%%$'\\t'*} COMPREPLY+=("${value#"$kept"}") ;;
        esac
    done
}
complete -o nosort -F _builder_client_completion builder-client
"""
"""In place of click's, which takes the parts of an address with a port for words. It takes what fish is given."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that lets the Tab key complete names.

    It completes commands, options, jobs, platforms, builds and time zones. Names that a shell would not take for one word
    are left out. The examples install it for the next shells.

    \b
    Examples:
      builder-client completion bash > ~/.local/share/bash-completion/completions/builder-client
      builder-client completion zsh  > ~/.zfunc/_builder-client     (a folder of your $fpath)
      builder-client completion fish > ~/.config/fish/completions/builder-client.fish
    """
    standard_output().line(_BASH if shell == "bash" else _source(context.find_root().command, shell))


def _source(program: click.Command, shell: str) -> str:
    complete = get_completion_class(shell)
    assert complete is not None  # click has both
    return complete(program, {}, "builder-client", "_BUILDER_CLIENT_COMPLETE").source()
