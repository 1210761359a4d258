"""credentials: users and passwords for uploads come from files, and get nowhere else."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from endpoints import serving
from farm import Server, eventually, log_lines, start_server
from scripted import OURS, build, connect, do, info, schedule

from builder.extension.uploads import ListUploads, UploadsListed
from builder_server import credentials
from builder_server.credentials import UnusableCredentials, with_credentials

SECRET = "s3cret:/@ %41é"
A, B = "https://a.example/upload", "http://b.example:81/u?x=1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.touch(0o600)
    return path


# --- the file ------------------------------------------------------------------------------------------------------


def test_users_and_passwords_get_into_urls(file: Path) -> None:
    file.write_text(f"# for A\n\n  {A} \t me@home  {SECRET} \n")
    first, second = with_credentials([A, B], file)
    import httpx

    url = httpx.URL(first)
    assert (url.username, url.password, str(url.copy_with(userinfo=b""))) == ("me@home", SECRET, A)
    assert second == B


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{A} me\n", ", line 1: write URL USER PASSWORD"),
        (f"\nme {SECRET} x\n", ", line 2: write URL USER PASSWORD"),
        (f"{A} me {SECRET}\n{A} you {SECRET}\n", ", line 2: that receiver has a line already"),
        (f"https://c.example me {SECRET}\n", ", line 1: write the URL as --upload has it"),
        (f"{A} me {SECRET}\udcff\n", " is not UTF-8"),
    ],
    ids=["no password", "no URL", "twice", "unknown", "not UTF-8"],
)
def test_a_wrong_file(file: Path, content: str, reason: str) -> None:
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UnusableCredentials, match=re.escape(f"{file}{reason}")) as raised:
        with_credentials([A, B], file)
    assert "s3cret" not in str(raised.value)


def test_a_file_that_everybody_can_read(file: Path) -> None:
    file.chmod(0o604)
    with pytest.raises(UnusableCredentials, match="everybody can read it: chmod o= "):
        with_credentials([A], file)
    with pytest.raises(UnusableCredentials, match=r"can't read .*: No such file"):
        with_credentials([A], file.with_name("none"))


def test_a_credential_of_the_service_manager(tmp_path: Path) -> None:
    assert credentials.default_path({}) is None
    assert credentials.default_path({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None
    (tmp_path / "upload-credentials").touch()
    assert credentials.default_path({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == tmp_path / "upload-credentials"


# --- where they are not --------------------------------------------------------------------------------------------


def traces(server: Server) -> bytes:
    """Return what others can see of a server: its arguments, its environment and its log."""
    process = Path(f"/proc/{server.pid}")
    variables = b""
    with contextlib.suppress(PermissionError):  # nobody but root sees these
        variables = (process / "environ").read_bytes()
    arguments = (process / "cmdline").read_bytes()
    assert b"--upload=" in arguments
    return arguments + variables + server.log.encode()


async def test_a_password_is_in_no_log_no_list_and_no_reply(tmp_path: Path, file: Path) -> None:
    """Whatever is answered to it."""
    with serving() as good, serving() as refusing, serving() as failing:
        refusing.status, failing.status = 403, 500
        urls = [each.url(user="") for each in (good, refusing, failing)]
        file.write_text("".join(f"{url} me s3cret\n" for url in urls))
        uploads = [f"--upload={url}" for url in urls]
        arguments = (*uploads, f"--upload-credentials-file={file}", "-v", "-v", "--log-format=json")
        async with start_server(tmp_path, *arguments, is_forked=False) as server:
            await do(server, schedule("a"))
            await build(server)
            for each in (good, refusing, failing):
                await eventually(lambda: log_lines(server.log, "uploaded", f":{each.port}/"))  # noqa: B023 - at once
                assert each.requests[0].headers["Authorization"].startswith("Basic ")
            replies = repr(await info(server))
            async with connect(server, OURS) as client:
                await client.send(ListUploads(count=10))
                replies += repr(await client.receive(UploadsListed))
            assert "s3cret" not in replies
            assert b"s3cret" not in traces(server)
            assert log_lines(server.log, "uploaded")
            assert server.terminate() == 0
            assert b"s3cret" not in server.log.encode()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere arguments can't be changed")
async def test_a_password_of_an_argument_is_not_in_the_list_of_processes(tmp_path: Path) -> None:
    with serving() as endpoint:
        url = endpoint.url(user="m\u00e0:s3cr\u00e0@")
        async with start_server(tmp_path, f"--upload={url}", "-v", is_forked=False) as server:
            await do(server, schedule("a"))
            await build(server)
            await server.wait_for_log("uploaded")
            shown = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
            assert b"--upload=http://%s@127.0.0.1:%d/upload?*******" % (b"*" * 10, endpoint.port) in shown
            assert "-v" in map(bytes.decode, shown)


@pytest.mark.skipif(sys.platform != "linux", reason="what a core dump is, is told by Linux")
@pytest.mark.parametrize("kept_by", ["keep_memory_secret", "make_no_core_dump", None])
def test_there_is_no_core_dump(tmp_path: Path, kept_by: str | None) -> None:
    code = "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (10**7, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
    keep = f"from builder.runtime.secrecy import {kept_by}\n{kept_by}()\n" if kept_by else ""
    child = subprocess.Popen([sys.executable, "-c", f"{code}{keep}os.abort()"], cwd=tmp_path)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    assert os.WTERMSIG(status) == signal.SIGABRT
    if kept_by:
        assert not os.WCOREDUMP(status)
        assert list(tmp_path.iterdir()) == []
    elif not os.WCOREDUMP(status):
        pytest.skip("no core dumps are made here")


async def test_a_server_without_passwords_makes_none_either(tmp_path: Path) -> None:
    """There are keys in it: of TLS, and those that sign."""
    async with start_server(tmp_path) as server:
        assert resource.prlimit(server.pid, resource.RLIMIT_CORE) == (0, 0)
