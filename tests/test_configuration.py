"""configuration: what is in force, where it comes from, what is wrong with it; and the examples."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from authorities import Authority
from click.testing import CliRunner, Result

import builder_server.cli
import builder_web.administration.cli
import builder_web.cli
import builder_worker.cli
from builder.runtime.configuration import in_force
from builder_client import config, jobs, schedule_file
from builder_server.credentials import with_credentials
from builder_server.names import REVOKED

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

PROGRAMS: dict[str, tuple[click.Command, list[str]]] = {
    "server": (builder_server.cli.command, []),
    "worker": (builder_worker.cli.cli, ["p1"]),
    "web": (builder_web.cli.command, []),
}


def run(program: str, *arguments: str, **env: str) -> Result:
    command, given = PROGRAMS[program]
    return CliRunner().invoke(command, [*arguments, *given], env=env, prog_name=f"builder-{program}")


# --- the examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_as_it_is_changes_nothing(program: str) -> None:
    found = run(program, f"--config={EXAMPLES / program}.toml", "--print-config")
    assert (found.exit_code, found.output) == (0, run(program, "--print-config").output)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_has_every_option_with_a_value_that_is_taken(program: str, tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[a-z-]+ = )", "", (EXAMPLES / f"{program}.toml").read_text("utf-8"), flags=re.MULTILINE)
    text = text.replace("/var/lib/builder-roots/debian-12", str(tmp_path))  # which must be there
    path = tmp_path / "all.toml"
    path.write_text(text)
    found = run(program, f"--config={path}", "--print-config")
    assert found.exit_code == 0, found.output
    missing = [line for line in found.output.splitlines() if not line.endswith(f"  # {path}")]
    assert missing == [], "the example lacks them"


def test_the_example_of_passwords_for_uploads(tmp_path: Path) -> None:
    """It is for the receiver of the server's example."""
    (named,) = re.findall(r'^#upload = \["(.*)"\]$', (EXAMPLES / "server.toml").read_text("utf-8"), re.MULTILINE)
    path = tmp_path / "upload-credentials"
    path.write_bytes((EXAMPLES / path.name).read_bytes())
    path.chmod(0o600)
    assert with_credentials([named], path) == (
        "https://uploader:correct%20horse%20battery%20staple@builds.example.org/upload",
    )


def test_the_example_of_the_client() -> None:
    text = (EXAMPLES / "client.toml").read_text("utf-8")
    found = config.parse(text)
    assert found.default in found.servers
    keys = {config.written(key.name) for kind in (config.ClientSettings, config.Server) for key in kind.__attrs_attrs__}
    assert keys - set(re.findall(r"^([a-z-]+) = ", text, re.MULTILINE)) == {"servers"}


def test_the_example_of_a_schedule() -> None:
    path = EXAMPLES / "schedule.toml"
    assert set(schedule_file.read(path)) == {"lib", "app", "retreat"}
    assert {key for table in tomllib.loads(path.read_text("utf-8"))["jobs"].values() for key in table} == {
        *schedule_file.WHAT,
        *jobs.KEYS,
    }


# --- what is in force ----------------------------------------------------------------------------------------------


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('port = 1\ngrace = "9m"\njob_timeout = 5\n')
    found = run("server", f"--config={path}", "--port=2", "--print-config", BUILDER_SERVER_GRACE="3m")
    lines = found.output.splitlines()
    assert found.exit_code == 0
    for line in (
        "port = 2  # command line",
        'grace = "3m"  # environment, BUILDER_SERVER_GRACE',
        f'job-timeout = "5"  # {path}',
        'config-dir = "/etc/builder"  # default',
        "#metrics =  # default",
    ):
        assert line in lines
    again = tmp_path / "again.toml"
    again.write_text(found.output)
    assert run("server", f"--config={again}", "--print-config").exit_code == 0


def test_variables_that_are_no_options_of_their_own() -> None:
    assert (
        'remote = "h:1"  # environment, BUILDER_REMOTE\n'
        in run("worker", "--print-config", BUILDER_REMOTE="h:1").output
    )


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [
        ("server", ["--upload=https://me:s3cret@h/u"], "https://***@h/u"),
        ("server", ["--upload=https://me:s3cret@s3cret@h/u?s3cret"], "https://***@h/u?***"),
        ("server", ["--upload=https://me:s3cret s3cret@h/u#s3cret"], "https://***@h/u#***"),
        ("server", ["--upload=me:s3cret@h/u"], "***@h/u"),
        ("server", ["--upload=https//me:s3cret@h/u"], "***@h/u"),
        ("server", ["--upload=https://h/u"], "https://h/u"),
        ("worker", ["--env=A=s3cret\ns3cret", "--env=B"], 'env = ["A=***", "B"]'),
    ],
)
def test_what_is_secret_is_not_shown(program: str, arguments: list[str], shown: str) -> None:
    found = run(program, *arguments, "--print-config")
    assert "s3cret" not in found.output
    assert shown in found.output


# --- what is wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., list[str]]:
    """Check the options of a server; return what is wrong, a line each."""
    (tmp_path / "data").mkdir()
    (tmp_path / "etc").mkdir()

    def run_check(*arguments: str) -> list[str]:
        found = run("server", f"--dir={tmp_path}/data", f"--config-dir={tmp_path}/etc", *arguments, "check-config")
        if found.exit_code == 0:
            assert (found.stdout, found.stderr) == ("builder-server: nothing is wrong\n", "")
        else:
            assert (found.exit_code, found.stdout) == (2, "")
        return [line.removeprefix("builder-server: ") for line in found.stderr.splitlines()]

    return run_check


def test_what_is_wrong_with_a_site(tmp_path: Path) -> None:
    def check_site(*arguments: str) -> tuple[int, str]:
        found = run("web", f"--datadir={tmp_path}/data", *arguments, "check-config")
        return found.exit_code, found.output

    (tmp_path / "key").write_text("no key")
    status, said = check_site(f"--provenance-key={tmp_path}/key")
    directory, key = said.splitlines()
    assert status == 2
    assert directory.endswith(f"make one with: builder-db migrate --datadir {tmp_path}/data")
    assert key.startswith(f"builder-web: --provenance-key: {tmp_path}/key: ")
    made = CliRunner().invoke(builder_web.administration.cli.command, ["migrate", f"--datadir={tmp_path}/data"])
    assert made.exit_code == 0, made.output
    assert check_site() == (0, "builder-web: nothing is wrong\n")


def test_an_older_list_of_revoked_certificates(tmp_path: Path, check: Callable[..., list[str]]) -> None:
    authority = Authority(tmp_path)
    own = authority.server().files
    authority.revoke(number=7)
    authority.crl.rename(tmp_path / "data" / REVOKED)
    given = f"--tls-cert={own.certificate}", f"--tls-key={own.key}", f"--tls-client-ca={authority.ca}"
    assert check(*given) == [f"{authority.crl} is gone: whom it revoked stays out; bring it back"]
    authority.revoke(number=6)
    (said,) = check(*given)
    assert said.startswith(f"{authority.crl} has an older list of CN=farm, number 6 of ")


def test_nothing_is_wrong(tmp_path: Path, check: Callable[..., list[str]]) -> None:
    (tmp_path / "etc" / "orb-build.template.p1").write_text("%%OPAM_PACKAGE%% on %%PLATFORM%%")
    authority = Authority(tmp_path)
    own = authority.server()
    certificates = (
        f"--tls-cert={own.files.certificate}",
        f"--tls-key={own.files.key}",
        f"--tls-client-ca={authority.ca}",
    )
    assert check("--ip=127.0.0.1", "--ip=0.0.0.0", "--metrics=1", "--upload=http://a:b@h/u", *certificates) == []


def test_all_that_is_wrong_is_said(tmp_path: Path, check: Callable[..., list[str]]) -> None:
    file = tmp_path / "server.toml"
    file.write_text('prot = 1\nlog-format = "xml"\nkeep = 5\n')
    (tmp_path / "etc" / "orb-build.template.p1").write_text("%%PACKAGE%%")
    (tmp_path / "etc" / "orb-build.template.p2").mkdir()
    found = check(
        f"--config={file}",
        "--port=x",
        "--job-timeout=nan",
        "--min-free=much",
        "--grace=soon",
        "--ip=0.0.0.0",
        "--ip=192.0.2.1",
        "--metrics=192.0.2.1:1",
        "--unix=/nowhere/socket",
        "--allow-user=nobody-has-this-name",
        "--upload=ftp://me:s3cret@h",
        "--database-password-file=/nowhere/password",
        "--name=east",
        f"--tls-crl={tmp_path}/none",
        "--dir=/nowhere",
    )
    wanted = [
        f"{file}: unknown option 'prot': 'port' is one",
        f"{file}: --keep takes text in quotes",
        "'--log-format': 'xml' is not one of",
        "'--port': 'x' is no whole number",
        "'--job-timeout': 'nan' is not a duration",
        "'--min-free': 'much' is not a size",
        "'--grace': 'soon' is not a duration",
        "others could reach 0.0.0.0 and do everything",
        "--ip: can't listen on 192.0.2.1: ",
        "--metrics: can't listen on 192.0.2.1: ",
        "--unix: there is no directory /nowhere",
        "there is no user nobody-has-this-name",
        "--upload: the upload URL must begin with http",
        "orb-build.template.p1 has %%PACKAGE%%, which stands for nothing",
        "orb-build.template.p2 is no file that can be a script",
        "--dir: there is no directory /nowhere",
        "--database-password-file: /nowhere/password can't be read",
        "--name and --advertise are for servers that share a --database",
    ]
    missing = [reason for reason in wanted if not any(reason in line for line in found)]
    assert (missing, len(found)) == ([], len(wanted)), found
    assert "s3cret" not in "".join(found)


def test_certificates_that_do_not_fit(tmp_path: Path, check: Callable[..., list[str]]) -> None:
    authority = Authority(tmp_path)
    own = authority.server()
    (line,) = check("--ip=127.0.0.1", f"--tls-cert={own.files.certificate}")
    assert line.startswith("--tls-key is missing")
    assert check(
        f"--tls-cert={own.files.certificate}", f"--tls-key={tmp_path}/none", f"--tls-client-ca={tmp_path}/ca2"
    ) == [
        f"--tls-key: can't read {tmp_path}/none: No such file or directory",
        f"--tls-client-ca: can't read {tmp_path}/ca2: No such file or directory",
    ]


def test_where_a_wrong_value_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[..., list[str]]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text('grace = "5 m"\n')
    monkeypatch.setenv("BUILDER_SERVER_PORT", "12 34")
    assert check(f"--config={file}", "--keep=age=90") == [
        "Invalid value for '--keep': 'age=90' has no unit: write it as in age=90d,count=20,bytes=500G",
        "Invalid value for '--port': '12 34' is no whole number (environment, BUILDER_SERVER_PORT)",
        f"Invalid value for '--grace': '5 m' is not a duration such as 90s, 10m or 1h30m ({file})",
    ]
    monkeypatch.delenv("BUILDER_SERVER_PORT")
    found = run("server", f"--config={file}", f"--dir={tmp_path}")
    assert (found.exit_code, f"10m or 1h30m ({file})" in found.output) == (2, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"dir = /nowhere\n", "line 1, 'dir = /nowhere': "),
        (b"port = 1\nport = 2\n", "line 2, 'port = 2': Cannot overwrite a value; "),
        (b"port = 1\n\xff\n", "line 2 is not UTF-8"),
        (None, "No such file"),
    ],
)
def test_of_a_file_that_can_t_be_read_nothing_else_is_said(
    tmp_path: Path, check: Callable[..., list[str]], content: bytes | None, said: str
) -> None:
    """What it would say is missing then, such as the directory."""
    file = tmp_path / "server.toml"
    if content is not None:
        file.write_bytes(content)
    (line,) = check(f"--config={file}", "--dir=/nowhere")
    assert f"can't read {file}: {said}" in line


def test_a_file_of_another_system(tmp_path: Path, check: Callable[..., list[str]]) -> None:
    file = tmp_path / "server.toml"
    file.write_bytes(b'\xef\xbb\xbfport = 1\r\n\tgrace = "1m"\r\n')
    assert check(f"--config={file}") == []


# --- a worker ------------------------------------------------------------------------------------------------------


def check_worker(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(builder_worker.cli.cli, arguments, prog_name="builder-worker")
    return found.exit_code, found.output


@pytest.mark.parametrize("platform", [[], ["debian-12"]])
def test_a_worker_s_options_are_checked(tmp_path: Path, platform: list[str]) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('label = ["big"]\n')
    status, said = check_worker(f"--config={file}", *platform, "check-config")
    assert (status, said) == (0, "builder-worker: nothing is wrong\n")
    file.write_text(
        'platform = "debian-12"\nlabel = ["a b"]\nremote = "h:x"\nslots = 0\nmax-pressure = "io"\nbind = "x"\n'
        'tls-ca = "ca.pem"\nenv = "NOT_SET_ANYWHERE"\nmin-free = "1 G"\n'
    )
    status, said = check_worker(f"--config={file}", *platform, "check-config")
    assert status == 2
    wanted = (
        "unknown option 'platform': it stands on the command line, as PLATFORM",
        "'--label': a b: write up to 50 letters",
        "invalid address 'h:x'",
        "'--slots': '0' is not a number from 1",
        "'--max-pressure': io: write memory=PERCENT",
        "'--min-free': '1 G' is not a size",
        "--env: the variable NOT_SET_ANYWHERE is not set",
        "TLS needs --tls-ca, --tls-cert, --tls-key",
        "x: write SRC:DST",
    )
    missing = [each for each in wanted if each not in said]
    assert (missing, said.count("\n")) == ([], len(wanted)), said


def test_what_is_in_force_needs_no_argument() -> None:
    status, said = check_worker("--print-config", "--slots=2")
    assert status == 0
    assert 'slots = "2"  # command line' in said.splitlines()
    status, said = check_worker("--print-config", "--slots=x")
    assert status == 2


def test_help_of_the_check_is_help() -> None:
    found = CliRunner().invoke(builder_server.cli.command, ["check-config", "--help"])
    assert found.exit_code == 0
    assert "Say all that is wrong" in found.output


def test_what_is_in_force_is_told_of_a_context() -> None:
    context = builder_web.cli.command.make_context("builder-web", ["--port=1"])
    assert "port = 1  # command line" in [*in_force(context)]
