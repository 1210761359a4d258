"""The manual pages: every command and option is in them, and nothing in them is wrong for those who read roff."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from operators import ROOT, need, run

import builder_client.registry
import builder_server.cli
import pages
import roff
from builder_client import config, jobs, schedule_file

MADE = pages.pages()


def plain(page: str) -> str:
    """Return what a page says, without fonts and escapes."""
    text = re.sub(r"\\f[BIR]", "", MADE[page])
    for escaped, char in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\(ha", "^"), (r"\(ti", "~"), (r"\e", "\\")):
        text = text.replace(escaped, char)
    return text


def commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            _, inner, _ = command.resolve_command(context, [name])
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=context))


@pytest.mark.parametrize("program", pages.PROGRAMS)
def test_every_command_and_option_is_in_the_page(program: str) -> None:
    command = pages.PROGRAMS[program]
    shown = plain(f"man1/{program}.1")
    parts = dict(re.findall(r"^\.SS (.*)\n((?:(?!\.S[SH] ).*\n)*)", shown, re.MULTILINE))
    top = re.split(r"^\.SH COMMANDS$", shown, flags=re.MULTILINE)[0]
    found = list(commands(command, click.Context(command, info_name=program)))
    for context in found:
        path = context.command_path.removeprefix(program).strip()
        part = parts[path] if path else top
        assert f"{context.command_path} " in part
        for option in context.command.get_params(context):
            for name in [*option.opts, *option.secondary_opts] if isinstance(option, click.Option) else []:
                assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", part), (path, name)
    assert len(parts) == len(found) - 1


def test_all_commands_of_the_client_are_found() -> None:
    sections = builder_client.registry.SECTIONS.values()
    shown = plain("man1/builder-client.1")
    assert sorted(re.findall(r"^\.SS (.*)", shown, re.MULTILINE)) == sorted(
        name for names in sections for name in names
    )


def test_exit_statuses_and_examples_have_sections() -> None:
    for program in (
        "builder-client",
        "builder-db",
        "builder-inspect",
        "builder-provision",
        "builder-server",
        "builder-web",
    ):
        assert re.search(r"^\.SH EXIT STATUS\n(.*\n)*?.*0", MADE[f"man1/{program}.1"], re.MULTILINE), program
    assert "builder-client schedule hello debian-12 hello.sh" in plain("man1/builder-client.1").split(".SH EXAMPLES")[1]
    assert "BUILDER_SERVER" in plain("man1/builder-client.1").split(".SH ENVIRONMENT")[1]


@pytest.mark.parametrize("page", pages.FILES, ids=lambda page: page.name)
def test_examples_of_files_have_keys_of_the_page(page: roff.FilePage) -> None:
    keys = {key.name.rpartition(".")[2] for key in page.keys}
    example = tomllib.loads(page.example)
    assert set(example) - {"servers", "jobs", "engines", "platforms"} <= keys
    for key in page.keys:
        assert f"\n\\fB{roff.escape(key.name)}\\fR = " in MADE[f"man5/{page.name}.5"]


def test_the_example_of_the_clients_file_is_right() -> None:
    assert config.parse(pages.client_file().example).default == "prod"


def test_the_keys_of_a_schedule_are_those_that_it_takes(tmp_path: Path) -> None:
    page = pages.schedule_file()
    assert [key.name for key in page.keys] == [*schedule_file.KEYS]
    table = (ROOT / "docs/schedule.md").read_text("utf-8").partition("| key | value |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))) == {*jobs.KEYS}
    path = tmp_path / "schedule.toml"
    path.write_text(page.example, "utf-8")
    (tmp_path / "scripts").mkdir()
    for name in ("lib", "app"):
        (tmp_path / f"scripts/{name}.sh").write_bytes(b"make\n")
    assert [*schedule_file.read(path)] == ["lib", "app", "retreat"]


def test_the_keys_of_the_servers_file_are_those_that_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("no-key = 1\n", "utf-8")
    refused = CliRunner().invoke(builder_server.cli.command, ["--config", str(path)], env={"COLUMNS": "1000"})
    _, _, taken = refused.output.strip().partition("unknown option 'no-key'; there are ")
    assert sorted(key.name for key in pages.server_file().keys) == taken.split(", ")


@pytest.mark.parametrize("page", MADE)
def test_man_has_nothing_to_complain_about(page: str, tmp_path: Path) -> None:
    need("man", ["man"])
    path = tmp_path / Path(page).name
    path.write_text(MADE[page], "ascii")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"}
    command = ["man", "--warnings=w", "--local-file", str(path)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=True)
    assert done.stderr == b""
    shown = re.sub(rb".\x08", b"", done.stdout).decode()
    assert "SEE ALSO" in shown
    assert "--" not in shown or re.search(r"(?<![\w-])--[a-z]", shown), "minus signs are minus signs"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])))
def test_no_text_is_read_as_a_request(text: str) -> None:
    escaped = roff.escape(text)
    assert escaped.isascii()
    assert not escaped.startswith((".", "'"))
    # a backslash begins nothing but what escape itself writes
    assert re.fullmatch(r"(?:[^\\]|\\[e&-]|\\\((?:aq|ga|ha|ti)|\\\[u[0-9A-F]{4,6}\])*", escaped)


def test_blocks_of_a_help_text() -> None:
    text = """Do it.

    It is
    done.

    \b
    Examples:
      do it
        now

    \b
    JSON: {a,
           b}

    \b
    Exit status: 0 done,
    1 not
    """
    assert list(roff.blocks(text)) == [
        roff.Block(text="Do it."),
        roff.Block(text="It is\ndone."),
        roff.Block(text="do it\n  now", title="Examples", kept=True),
        roff.Block(text="{a,\n b}", title="JSON", kept=True),
        roff.Block(text="0 done,\n1 not", title="Exit status"),
    ]


@pytest.mark.long
def test_the_wheel_installs_the_pages(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for page, text in MADE.items():
            (name,) = (name for name in archive.namelist() if name.endswith(f".data/data/share/man/{page}"))
            assert archive.read(name).decode() == text
