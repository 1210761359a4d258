"""Where builder-server listens: addresses that others reach, Unix sockets, sockets that are handed over; its watchdog."""

import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from authorities import Authority
from farm import (
    DEADLINE,
    Server,
    environment,
    eventually,
    log_lines,
    run_server,
    start_server,
    wait_until_announced,
)
from scripted import CLIENT, connect, do, info, schedule
from test_server_config import refused
from visitors import over_unix, shown

from builder.messages import Execute, Info, InfoReply, Success
from builder.roles import HolderRole
from builder.runtime import service
from builder_server import listening
from builder_server.limits import ServerLimits
from builder_server.listening import CannotListen, Listening, Refusals, Users, _is_loopback

WAYS_OUT = ("--tls-cert", "--tls-key", "--tls-client-ca", "--unix", "--insecure")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def options(authority: Authority) -> list[str]:
    files = authority.server().files
    return [f"--tls-cert={files.certificate}", f"--tls-key={files.key}", f"--tls-client-ca={files.ca}"]


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_is_refused(address: str, tmp_path: Path) -> None:
    status, said = refused(tmp_path, f"--ip={address}")
    assert status == 3
    assert all(way in said for way in WAYS_OUT)


async def test_unless_it_is_to_be_insecure(tmp_path: Path) -> None:
    async with start_server(tmp_path, "--ip=0.0.0.0", "--insecure") as server:
        await do(server, schedule("a"))
        assert log_lines(server.log, "warning 0.0.0.0:", "is insecure: whoever reaches it can")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_what_is_a_loopback_address(host: str, *, is_loopback: bool) -> None:
    assert _is_loopback(host) == is_loopback


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tls-cert=c"], "--tls-key is missing"),
        (["--tls-cert=c", "--tls-key=k"], "--tls-client-ca is missing"),
        (["--tls-key=k", "--tls-client-ca=a"], "--tls-cert is missing"),
        (["--tls-crl=c"], "--tls-crl and --plain-loopback need"),
        (["--plain-loopback"], "--tls-crl and --plain-loopback need"),
        (["--tls-cert=c", "--tls-key=k", "--tls-client-ca=a", "--insecure"], "--insecure is for addresses without TLS"),
    ],
)
def test_options_that_say_nothing_together(given: list[str], said: str, tmp_path: Path) -> None:
    status, log = refused(tmp_path, *given)
    assert status == 2
    assert said in log


def test_files_that_can_not_be_used(authority: Authority, tmp_path: Path) -> None:
    given = options(authority)
    status, said = refused(tmp_path, *given, "--tls-crl=/nowhere/crl.pem")
    assert (status, "can't read /nowhere/crl.pem: No such file" in said) == (3, True)
    status, said = refused(tmp_path, *given[:1], "--tls-key=/nowhere/key", given[2])
    assert (status, "can't read /nowhere/key: No such file" in said) == (3, True)


async def test_tls_on_all_addresses_but_where_loopback_is_plain(authority: Authority, tmp_path: Path) -> None:
    operator = authority.issue("alice", uris=[HolderRole.OPERATOR.uri])
    unused = "nobody is asked for a certificate: there is no address for that, which --ip would name"
    async with start_server(tmp_path, *options(authority), "--ip=127.0.0.1") as server, shown(server, operator, CLIENT):
        assert unused not in server.log
    async with start_server(tmp_path, *options(authority), "--ip=127.0.0.1", "--plain-loopback") as server:
        await do(server, schedule("a"))
        assert server.log.count(unused) == 1


async def test_certificates_beside_a_unix_socket_alone(authority: Authority, tmp_path: Path) -> None:
    async with start_server(tmp_path, *options(authority), f"--unix={tmp_path / 'socket'}") as server:
        await ask_over(tmp_path / "socket")
        assert server.log.count("nobody is asked for a certificate") == 1


# --- Unix sockets --------------------------------------------------------------------------------------------------


async def ask_over(path: Path) -> None:
    async with over_unix(path, CLIENT) as peer:
        await peer.send(Info())
        await peer.receive(InfoReply)


async def test_a_unix_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with run_server(tmp_path, listening=Listening(unix=path)) as found:
        assert found.port == 0
        await ask_over(path)
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()


async def test_who_comes_over_it_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "socket"
    async with run_server(tmp_path, listening=Listening(unix=path, addresses=("127.0.0.1",))) as found:
        await do(found, schedule("a"))
        async with over_unix(path, CLIENT) as peer:
            await peer.send(Execute(name="a"))
            await peer.receive(Success)
        me = pwd.getpwuid(os.geteuid()).pw_name
        assert log_lines(caplog.text, f"Unix socket ({me}): Execute a")


async def test_the_socket_of_a_server_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with start_server(tmp_path, f"--unix={path}", "--ip=127.0.0.1") as found:
        found.kill()
    assert path.is_socket()
    async with start_server(tmp_path, f"--unix={path}", "--ip=127.0.0.1"):
        await ask_over(path)


async def test_what_else_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        status, said = refused(tmp_path, f"--unix={path}")
        assert (status, f"can't listen on {path}: Address already in use" in said) == (3, True)
    path.unlink()
    path.write_text("precious")
    status, said = refused(tmp_path, f"--unix={path}")
    assert (status, f"can't listen on {path}: it is there, and no socket" in said) == (3, True)
    assert path.read_text() == "precious"
    status, said = refused(tmp_path, f"--unix={tmp_path / ('x' * 200)}")
    assert (status, "path too long" in said) == (3, True)


async def test_other_users_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The number is what the kernel says; this process can't always be somebody else."""
    path = tmp_path / "socket"
    nobody = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(listening, "_peer_user", lambda _: nobody)
    async with run_server(tmp_path, listening=Listening(unix=path)), over_unix(path) as peer:
        assert await peer.wait_closed() == b""
    assert log_lines(
        caplog.text, "Unix socket (nobody): not let in: user nobody may not use the Unix socket", "--allow-user"
    )
    async with run_server(tmp_path, listening=Listening(unix=path, users=("nobody",))):
        await ask_over(path)


def test_who_may_use_it() -> None:
    mine = {0, os.geteuid()}
    assert Users.of(()).numbers == mine
    assert Users.of(["nobody", "4711"]).numbers == mine | {pwd.getpwnam("nobody").pw_uid, 4711}
    with pytest.raises(CannotListen, match="there is no user no-such-user here"):
        Users.of(["no-such-user"])


PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""One that every user can run."""


@pytest.mark.skipif(os.geteuid() != 0 or PYTHON is None, reason="only root can be somebody else")
async def test_the_kernel_says_who_it_is(tmp_path: Path) -> None:
    """A process of another user, and not merely of another name."""
    path = tmp_path / "socket"
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o055 != 0o055:
            directory.chmod(directory.stat().st_mode | 0o055)
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(1))"
    async with start_server(tmp_path, f"--unix={path}", "--ip=127.0.0.1") as found:
        done = await trio.run_process([str(PYTHON), "-c", code], user="nobody", capture_stdout=True)
        assert done.stdout == b"b''\n"
        await found.wait_for_log("not let in: user nobody may not use")  # once it is closed


def test_how_freebsd_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (0, 1)
            return struct.pack("IIh", 0, 1001, 1).ljust(size, b"\0")

    class Transport:
        socket = Socket()

    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    assert listening._peer_user(Transport()) == 1001  # type: ignore[arg-type]


# --- what the service manager hands over ---------------------------------------------------------------------------

HANDING_OVER = """
import os, sys
sockets, *command = sys.argv[1:]
for number, socket in enumerate(sockets.split(":")):
    os.dup2(int(socket), 3 + number)
os.environ.update(LISTEN_FDS=str(number + 1), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sockets)
os.execv(command[0], command)
"""


@contextlib.contextmanager
def handed_over(root: Path, *sockets: socket.socket, arguments: tuple[str, ...] = ()) -> Iterator[Server]:
    """Run a server that is started as systemd does: with sockets from descriptor 3 on."""
    data_dir, config_dir, log_path = root / "data", root / "etc", root / "server.log"
    data_dir.mkdir(exist_ok=True)
    config_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "builder_server", f"--dir={data_dir}", f"--config-dir={config_dir}", *arguments]
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in sockets]  # out of the way of where they are to be
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HANDING_OVER, ":".join(map(str, high)), *command],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
            pass_fds=high,
        )
    for each in high:
        os.close(each)
    found = Server(name="server", process=process, log_path=log_path, data_dir=data_dir, config_dir=config_dir)
    try:
        yield found
    finally:
        if process.poll() is None:
            found.kill()
        assert process.stdout
        process.stdout.close()


async def test_sockets_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        with handed_over(tmp_path, tcp, unix) as found:
            await wait_until_announced(found)
            assert found.announcement.endswith(f"127.0.0.1:{tcp.getsockname()[1]}, unix:{path}")
            assert (await info(found)).running == ()
            await ask_over(path)
            assert found.terminate() == 0
        assert path.exists()  # it is the manager's
        async with connect(found) as waiting:  # the next server has it
            with handed_over(tmp_path, tcp, unix) as found:
                await wait_until_announced(found)
                await waiting.greet(CLIENT)


async def test_a_socket_that_others_reach_is_refused_too(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as tcp, handed_over(tmp_path, tcp) as found:
        assert found.wait() == 3
        assert all(way in found.log for way in WAYS_OUT)


def test_sockets_of_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for process, count in ((str(os.getppid()), "1"), (str(os.getpid()), "x"), (str(os.getpid()), "")):
        monkeypatch.setenv("LISTEN_PID", process)
        monkeypatch.setenv("LISTEN_FDS", count)
        assert service.passed_sockets() == []
        assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize(
    ("usec", "process", "interval"),
    [("30000000", "", 10.0), ("30000000", "me", 10.0), ("30000000", "1", None), ("0", "", None), ("", "", None)],
)
def test_how_often_the_manager_is_told(
    usec: str, process: str, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "me" else process)
    assert service.watchdog_interval() == interval


async def test_the_event_loop_shows_that_it_turns(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"}
        async with start_server(tmp_path, env=env):
            told = b""
            while told != b"READY=1":
                told = await trio.to_thread.run_sync(manager.recv, 100)
            for _ in range(3):
                assert await trio.to_thread.run_sync(manager.recv, 100) == b"WATCHDOG=1"


# --- what is no handshake ------------------------------------------------------------------------------------------

GREATEST_HITS = [
    b"\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"OPTIONS / RTSP/1.0\r\n\r\n",
    b"HELP\r\n",
    b"SSH-2.0-scanner\r\n",
    b"\x80\x9e\x01\x03\x01\x00\x75\x00\x00\x00\x20",  # SSL 2's hello
    b"\x00" * 100,
    b"\xff" * 100,
    b"\x16\x03\x01\xff\xff" + b"\x01" * 300,  # a record that is too long
    b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff" * 10,  # a hello of 16 MiB
    b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
    bytes(range(256)) * 40,
]


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
async def test_a_port_scanner(
    *, is_encrypted: bool, tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    operator = authority.issue("alice", uris=[HolderRole.OPERATOR.uri])
    tls = authority.server().files if is_encrypted else None
    async with run_server(tmp_path, tls=tls) as found:
        for _ in range(3):
            for data in GREATEST_HITS:
                with contextlib.suppress(trio.BrokenResourceError):
                    async with connect(found) as peer:
                        await peer.send_raw(data)
                        await peer.stream.send_eof()
                        await peer.wait_closed()
        if is_encrypted:
            async with shown(found, operator, CLIENT) as peer:
                await peer.send(Info())
                await peer.receive(InfoReply)
        else:
            await info(found)
    lines = log_lines(caplog.text, " warning ")
    assert len(lines) <= (len(GREATEST_HITS) if is_encrypted else 3 * len(GREATEST_HITS))
    assert "Traceback" not in caplog.text


async def test_who_shakes_no_hands_is_closed(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ServerLimits(handshake=0.05)
    async with run_server(tmp_path, tls=authority.server().files, limits=limits) as found:
        for begun in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
            async with connect(found) as peer:
                await peer.send_raw(begun)
                assert await peer.wait_closed() == b""
        assert await eventually(lambda: log_lines(caplog.text, "not let in: it was silent for too long"))


async def test_a_handshake_of_an_older_version_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Before 1.3 a peer could have keys negotiated again and again."""
    context = authority.issue("alice").context
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with run_server(tmp_path, tls=authority.server().files) as found:
        transport = await trio.open_tcp_stream("127.0.0.1", found.port)
        async with trio.SSLStream(transport, context, server_hostname="localhost") as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()


async def test_the_same_reason_is_said_now_and_then(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    refusals = Refusals()
    for _ in range(5):
        refusals.say("garbage")
    refusals.say("other garbage")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "not let in: garbage",
        "not let in: other garbage",
    ]
    caplog.clear()
    await trio.sleep(listening.REFUSALS_PAUSE)
    refusals.say("garbage")
    assert caplog.records[-1].getMessage() == "not let in: garbage (4 more since the last)"
