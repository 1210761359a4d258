"""The file of settings: what may be in it, what is said of what may not, and what wins over it."""

import errno
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from client_harness import (
    Server,
    assert_one_line,
    closed_port,
    environment,
    run_client,
    run_in_terminal,
    succeed,
)
from hypothesis import given
from hypothesis import strategies as st
from test_client_commands import complete
from test_client_info import answer

from builder.messages import Execute
from builder_client import config
from builder_client.config import ClientSettings, parse


def test_all_keys() -> None:
    assert parse("") == ClientSettings()
    assert parse(
        'default = "test"\ncolor = "never"\nyes = true\n'
        '[servers.prod]\nremote = "build.example.org:1234"\n[servers.test]\nremote = "[::1]:5"\n'
    ) == ClientSettings(
        default="test",
        color="never",
        yes=True,
        servers={
            "prod": config.Server(remote="build.example.org:1234"),
            "test": config.Server(remote="[::1]:5"),
        },
    )


REMOTE = 'remote = "HOST:PORT"'

WRONG = [
    ('colour = "never"', "colour: there is no such key; did you mean color?"),
    ("sound = true", "sound: there is no such key; there are color, default, yes"),
    ('color = "blue"', 'color: write color = "auto" or "always" or "never"'),
    ("color = ['never']", 'color: write color = "auto" or "always" or "never"'),
    ("yes = 1", "yes: write yes = true or false"),
    ("default = 3", 'default: write default = "NAME", one of the servers'),
    ('default = "prod"', f"default: there is no [servers.prod]; write [servers.prod] and, below it, {REMOTE}"),
    (
        'default = "prdo"\n[servers.prod]\nremote = "h"',
        "default: there is no [servers.prdo]; did you mean prod?",
    ),
    ("servers = 1", f"servers: write [servers.NAME] and, below it, {REMOTE}"),
    ("servers.prod = 1", "servers.prod: write it as a table, [servers.prod]"),
    ("[servers.prod]", f"servers.prod.remote: write {REMOTE}"),
    ('[servers.prod]\nremote = "h:p"', f"servers.prod.remote: write {REMOTE}"),
    ("[servers.prod]\nremote = 1234", f"servers.prod.remote: write {REMOTE}"),
    (
        '[servers."\\u001b[2J"]\nremotes = "h"',
        "servers.\\x1b[2J.remotes: there is no such key; did you mean remote?",
    ),
    ("color", "Expected '=' after a key in a key/value pair (at end of document)"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_what_is_wrong_is_named_with_what_to_write(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["color", "default", "remote", "x"]), inner),
)


@given(st.dictionaries(st.sampled_from(["color", "default", "yes", "servers", "x"]), VALUES))
def test_any_file_is_read_or_refused(values: dict[str, object]) -> None:
    """Whatever a file holds, there are settings or one error: nothing of another kind reaches the person."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tomllib.loads", lambda _: dict(values))
        try:
            settings = parse("")
        except ValueError:
            return
    assert settings.color in config.COLORS
    assert settings.default is None or settings.default in settings.servers


def write(folder: Path, text: str | bytes) -> dict[str, str]:
    """Write a file of settings; return what tells the client where it is."""
    (folder / "builder").mkdir()
    (folder / "builder" / "client.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return {"XDG_CONFIG_HOME": str(folder)}


@pytest.mark.parametrize("text", ['[servers.prod]\nremote = "h:p"', b"\xff", "default = "])
def test_a_wrong_file_is_one_line_with_its_name(tmp_path: Path, text: str | bytes) -> None:
    done = run_client("info", env=environment(**write(tmp_path, text)))
    assert done.returncode == 2
    assert_one_line(done.stderr)
    assert bytes(tmp_path / "builder" / "client.toml") in done.stderr


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "builder" / "client.toml").mkdir(parents=True)
    done = run_client("info", env=environment(XDG_CONFIG_HOME=str(tmp_path)))
    assert done.returncode == 2
    assert done.stderr.endswith(b"client.toml: Is a directory; mend it, or move it away\n")


@pytest.mark.parametrize("kind", ["link", "loop", "dangling", "denied"])
def test_links_and_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    folder = tmp_path / "builder"
    folder.mkdir()
    target = {"link": "real.toml", "loop": "client.toml", "dangling": "nowhere", "denied": "real.toml"}[kind]
    (folder / "real.toml").write_text("sound = 1", "utf-8")
    (folder / "client.toml").symlink_to(target)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config.settings.cache_clear()
    if kind == "dangling":
        assert config.settings() == ClientSettings()
        return
    if kind == "denied":  # root may read anything
        monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    reason = {"link": "sound: there is", "loop": "Too many levels", "denied": "Permission denied; mend it"}[kind]
    with pytest.raises(config.InvalidSettings, match=f"client.toml: {reason}"):
        config.settings()


def test_no_home_is_no_error() -> None:
    variables = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_CONFIG_HOME")}
    with Server(answer) as server:
        assert server.run("info", env=variables).returncode == 0


def test_no_file_is_no_error() -> None:
    for base in ("/nonexistent", "/dev/null"):
        with Server(answer) as server:
            done = server.run("info", env=environment(XDG_CONFIG_HOME=base))
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_file_is_below_the_home_directory_where_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    write(tmp_path / ".config", "sound = 1")
    for base in ("", "relative"):
        done = run_client("info", env=environment(HOME=str(tmp_path), XDG_CONFIG_HOME=base))
        assert bytes(tmp_path / ".config/builder/client.toml") + b": sound: " in done.stderr


def test_a_server_is_taken_from_the_nearest_place(tmp_path: Path) -> None:
    with closed_port() as closed, Server(succeed) as server:
        nowhere = f"127.0.0.1:{closed}"
        servers = f'[servers.up]\nremote = "{server.address}"\n[servers.down]\nremote = "{nowhere}"\n'
        (tmp_path / "up").mkdir()
        (tmp_path / "down").mkdir()
        up = write(tmp_path / "up", 'default = "up"\n' + servers)
        down = write(tmp_path / "down", 'default = "down"\n' + servers)
        runs = [
            (("execute", "a"), up),  # the file
            (("execute", "b"), down | {"BUILDER_SERVER": "up"}),  # the environment over the file
            (("execute", "c"), down | {"BUILDER_SERVER": "down", "BUILDER_REMOTE": server.address}),
            (("-s", "up", "execute", "d"), down | {"BUILDER_REMOTE": nowhere}),  # an option over the environment
            (("execute", "e", "--server=up"), down | {"BUILDER_SERVER": "down"}),
            (("-s", "down", "execute", "f", "-r", server.address), down),  # the last option
            (("-r", nowhere, "execute", "g", "-s", "up"), down),
            (("-r", "", "execute", "h"), up),  # an empty one is none
        ]
        for arguments, variables in runs:
            done = run_client(*arguments, env=environment(**variables))
            assert (done.returncode, done.stderr) == (0, b""), arguments
    assert server.seen == [Execute(name=name) for name in "abcdefgh"]


def test_a_name_that_the_file_does_not_have(tmp_path: Path) -> None:
    variables = write(tmp_path, '[servers.prod]\nremote = "h"\n[servers.test]\nremote = "h"\n')
    done = run_client("-s", "prdo", "info", env=environment(**variables))
    assert done.returncode == 2
    assert done.stderr.endswith(b"client.toml: there is no [servers.prdo]; did you mean prod?\n")
    done = run_client("info", env=environment(BUILDER_SERVER="x", **variables))
    assert done.stderr.endswith(b"there is no [servers.x]; there are prod, test\n")


@pytest.mark.parametrize(
    ("text", "variables", "options", "colours"),
    [
        ('color = "never"', {}, [], False),
        ('color = "always"', {"TERM": "dumb"}, [], True),
        ('color = "always"', {"NO_COLOR": "1"}, [], False),
        ('color = "never"', {}, ["--color", "always"], True),
        ('color = "always"', {}, ["--color", "never"], False),
    ],
)
def test_colours(tmp_path: Path, text: str, variables: dict[str, str], options: list[str], *, colours: bool) -> None:
    with Server(answer) as server:
        _, shown = run_in_terminal(
            ["-r", server.address, "info", *options], environment(**write(tmp_path, text), **variables)
        )
    assert (b"\x1b[" in shown) is colours


def test_tab_offers_the_names_of_servers(tmp_path: Path) -> None:
    variables = write(tmp_path, '[servers.prod]\nremote = "h"\n[servers."a b"]\nremote = "h"\n')
    assert complete("", "builder-client -s ", **variables) == ["prod"]
    assert complete("", "builder-client execute -s p", **variables) == ["prod"]
    (tmp_path / "builder" / "client.toml").write_text("wrong")
    assert complete("", "builder-client -s ", **variables) == []
    assert complete("", "builder-client execute ", **variables) == []
    assert complete("", "builder-client info --color n", **variables) == ["never"]


def test_the_example_of_the_page_is_right() -> None:
    page = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```\n(default = .*?)```", page, re.DOTALL)
    settings = parse(example)
    assert settings.default == "prod"
    assert sorted(settings.servers) == ["farm", "prod", "test"]


def test_what_is_in_force_and_where_it_comes_from(tmp_path: Path) -> None:
    variables = write(tmp_path, 'default = "prod"\nyes = true\n[servers.prod]\nremote = "h:1"\ntls-ca = "ca.pem"\n')
    file = next(tmp_path.rglob("client.toml"))

    def shown(*arguments: str, **more: str) -> list[str]:
        done = run_client(*arguments, "--print-config", env=environment(**variables | more))
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode().splitlines()

    assert shown() == [
        f'remote = "h:1"  # {file}',
        f'tls-ca = "{file.with_name("ca.pem")}"  # {file}',
        "#tls-cert =  # default",
        "#tls-key =  # default",
        "#tls-name =  # default",
        'color = "auto"  # default',
        f"yes = true  # {file}",
    ]
    found = shown("-r", "there:5", BUILDER_TLS_KEY="key.pem", NO_COLOR="1")
    assert found[0] == 'remote = "there:5"  # command line'
    assert 'tls-key = "key.pem"  # environment, BUILDER_TLS_KEY' in found
    assert 'color = "auto"  # environment, NO_COLOR' in found
    assert shown(BUILDER_REMOTE="x:1")[0] == 'remote = "x:1"  # environment, BUILDER_REMOTE'
