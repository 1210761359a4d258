"""Client and worker with certificates, good ones and all kinds of bad ones, and over a Unix socket: the real programs."""

import contextlib
import logging
import select
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from authorities import DAY, Authority, Issued, now
from client_harness import assert_one_line, environment
from client_harness import run_client as run_alone
from cryptography.x509.oid import ExtendedKeyUsageOID
from farm import DEADLINE, LocalServer, eventually, run_server, running_worker

from builder.address import TcpAddress
from builder.endpoint import Endpoint, IncompleteTls, Servers, Tls
from builder.extension.uploads import CountUploads
from builder.runtime.tls import TlsFiles
from builder_client.errors import Unreachable
from builder_client.link import Link
from builder_client.remote import Remote
from builder_server import certified
from builder_server.listening import Listening

PAST = now() - 10 * DAY
WORKER, OPERATOR, OBSERVER = ("urn:builder:worker",), ("urn:builder:operator",), ("urn:builder:observer",)

Client = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def serving(root: Path, own: Issued, **options: Any) -> AsyncIterator[LocalServer]:
    async with run_server(root, tls=own.files, **options) as server:
        yield server


def options(files: TlsFiles) -> tuple[str, ...]:
    return f"--tls-ca={files.ca}", f"--tls-cert={files.certificate}", f"--tls-key={files.key}"


async def client(remote: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    return await trio.to_thread.run_sync(partial(run_alone, "-r", remote, *arguments, env=environment(**variables)))


async def told(remote: str, holder: Issued, *arguments: str) -> tuple[int, str]:
    """Return how the client ends that shows a certificate, and the one line that it says."""
    done = await client(remote, *(arguments or ("info",)), *options(holder.files))
    assert_one_line(done.stderr)
    return done.returncode, done.stderr.decode()


# --- what is good --------------------------------------------------------------------------------------------------


async def test_an_operator_changes_the_schedule(tmp_path: Path, authority: Authority) -> None:
    ann = authority.issue("ann", uris=OPERATOR)
    script = tmp_path / "script"
    script.write_bytes(b"true\n")
    async with serving(tmp_path, authority.server()) as server:
        for remote in (server.remote, f"localhost:{server.port}"):
            done = await client(remote, "schedule", f"job-{remote[0]}", "p1", str(script), *options(ann.files))
            assert (done.returncode, done.stderr) == (0, b"")
        variables = {
            f"BUILDER_TLS_{name}": str(path)
            for name, path in (("CA", ann.files.ca), ("CERT", ann.files.certificate), ("KEY", ann.files.key))
        }
        done = await client(server.remote, "info", **variables)
        assert b"job-1" in done.stdout
        # an option wins
        assert (await client(server.remote, "--tls-ca=/nonexistent", "info", **variables)).returncode == 2


async def test_the_file_of_settings_names_files_beside_it(tmp_path: Path, authority: Authority) -> None:
    authority.issue("ann", uris=OPERATOR)
    async with serving(tmp_path, authority.server()) as server:
        folder = tmp_path / "config" / "builder"
        folder.mkdir(parents=True)
        (folder / "client.toml").write_text(
            f'[servers.prod]\nremote = "{server.remote}"\ntls-ca = "../../ca/ca.pem"\n'
            f'tls-cert = "{authority.directory}/ann.pem"\ntls-key = "~/ann.key"\n',
            "utf-8",
        )
        variables = environment(XDG_CONFIG_HOME=str(folder.parent), HOME=str(authority.directory))
        done = await trio.to_thread.run_sync(partial(run_alone, "-s", "prod", "info", env=variables))
        assert (done.returncode, done.stderr) == (0, b"")


async def test_a_worker_builds(tmp_path: Path, authority: Authority) -> None:
    w1, ann = authority.issue("w1", uris=["urn:builder:worker:p1"]), authority.issue("ann", uris=OPERATOR)
    script = tmp_path / "script"
    script.write_bytes(b"echo hello\n")
    async with serving(tmp_path, authority.server()) as server:
        await client(server.remote, "schedule", "a", "p1", str(script), *options(ann.files))
        with running_worker(server, "p1", "--sandbox=none", *options(w1.files)) as worker:
            assert await worker.wait_async() == 0
        done = await client(server.remote, "history", "--json", *options(ann.files))
        assert b'"succeeded"' in done.stdout


async def test_a_build_goes_on_with_another_worker_and_another_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    """The server is the same, however it is spoken to: also by whoever was told of a job by a worker before."""
    old, new = authority.issue("old", uris=WORKER), authority.issue("new", uris=WORKER)
    ann = authority.issue("ann", uris=OPERATOR)
    script, begun, go_on = (tmp_path / name for name in ("script", "begun", "go-on"))
    script.write_text(f"touch {begun}; until test -e {go_on}; do sleep 0.1; done; echo two\n", "utf-8")
    async with serving(tmp_path, authority.server()) as server:
        await client(server.remote, "schedule", "a", "p1", str(script), *options(ann.files))
        with running_worker(server, "p1", "--loop", "--sandbox=none", *options(old.files)) as worker:
            await eventually(begun.exists, what="the begin of the job")
            worker.kill()
        authority.revoke(old)
        with running_worker(server, "p1", "--sandbox=none", *options(new.files)) as worker:
            await worker.wait_for_log("adopted")
            go_on.touch()
            assert await worker.wait_async() == 0
        shown = await client(server.remote, "history", "--json", *options(ann.files))
        assert b'"succeeded"' in shown.stdout


async def test_what_is_ended_while_something_comes_is_not_read_as_it_came(tmp_path: Path, authority: Authority) -> None:
    """Another thread ends the connection when the answer is there, encrypted and unread."""
    ann = authority.issue("ann", uris=OPERATOR)
    async with serving(tmp_path, authority.server()) as server:
        links: list[Link] = []
        tls = Tls(ca=str(ann.files.ca), certificate=str(ann.files.certificate), key=str(ann.files.key))
        remote = Remote(servers=Servers((Endpoint(TcpAddress("localhost", server.port), tls),)), on_link=links.append)

        def end() -> None:
            assert select.select([links[0]._sock], [], [], DEADLINE)[0]
            links[0].abort()

        def look() -> None:
            with contextlib.suppress(Unreachable):
                list(remote.stream(CountUploads(), what="uploads", on_wait=end))

        await trio.to_thread.run_sync(look)


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    script = tmp_path / "script"
    script.write_bytes(b"echo hello\n")
    async with run_server(tmp_path, listening=Listening(addresses=("127.0.0.1",), unix=path)) as server:
        remote = f"unix:{path}"
        # nobody speaks TLS there, whatever is set for other servers
        done = await client(remote, "schedule", "a", "p1", str(script), BUILDER_TLS_CA="/nonexistent")
        assert (done.returncode, done.stderr) == (0, b"")
        with running_worker(server, "p1", "--sandbox=none", f"--remote={remote}") as worker:
            assert await worker.wait_async() == 0
    done = await client(remote, "info")
    assert done.returncode == 5
    assert (
        f"can't reach the server at {remote}: No such file or directory; start builder-server".encode() in done.stderr
    )


# --- what is not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        ({"begin": PAST - DAY, "end": PAST}, 3, "this certificate has expired: 'builder-server certificates renew'"),
        ({"begin": now() + DAY}, 3, "this certificate is not taken: its log says why"),
        ({"is_self_signed": True}, 3, "this certificate is of another authority: --tls-cert names one"),
        ({"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, 3, "this certificate is not for clients: --tls-cert names"),
    ],
    ids=["expired", "not yet valid", "of no authority", "a server's"],
)
async def test_clients_that_are_refused(
    tmp_path: Path, authority: Authority, given: Mapping[str, Any], status: int, says: str
) -> None:
    async with serving(tmp_path, authority.server()) as server:
        found, line = await told(server.remote, authority.issue("eve", uris=OPERATOR, **given))
        assert found == status
        assert f"{server.remote} refuses this client: {says}" in line


async def test_a_client_of_another_authority(tmp_path: Path, authority: Authority) -> None:
    eve = Authority(tmp_path / "other").issue("eve", uris=OPERATOR, trusted=authority.ca)
    async with serving(tmp_path, authority.server()) as server:
        status, line = await told(server.remote, eve)
    assert status == 3
    assert "of another authority" in line


async def test_a_client_that_is_revoked(tmp_path: Path, authority: Authority) -> None:
    eve = authority.issue("eve", uris=OPERATOR)
    authority.revoke(eve)
    async with serving(tmp_path, authority.server()) as server:
        status, line = await told(server.remote, eve)
    assert status == 5
    assert "closed the connection at once: it may be that it refuses this certificate: its log says why" in line


async def test_an_observer_that_wants_more(tmp_path: Path, authority: Authority) -> None:
    eve = authority.issue("eve", uris=OBSERVER)
    async with serving(tmp_path, authority.server()) as server:
        assert (await client(server.remote, "info", *options(eve.files))).returncode == 0
        status, line = await told(server.remote, eve, "execute", "a")
    assert status == 3
    assert "needs the role operator" in line


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"begin": PAST - DAY, "end": PAST},
            "the server's certificate has expired: 'builder-server certificates renew server'",
        ),
        ({"begin": now() + DAY}, "the server's certificate is not valid yet: set the clocks"),
        ({"hosts": ["elsewhere"]}, "the server's certificate has other names than 127.0.0.1: --tls-name"),
        ({"is_self_signed": True}, "the server's certificate is of "),
        ({"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]}, "the certificate is no server's"),
    ],
    ids=["expired", "not yet valid", "another name", "of no authority", "a client's"],
)
async def test_servers_that_are_refused(
    tmp_path: Path, authority: Authority, given: Mapping[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certified, "_check_usage", lambda *_: None)  # ours would not start
    ann = authority.issue("ann", uris=OPERATOR + WORKER)
    async with serving(tmp_path, authority.server(**given)) as server:
        status, line = await told(server.remote, ann)
        assert status == 5
        assert f"no TLS with the server at {server.remote}: {says}" in line
        with running_worker(server, "p1", "--sandbox=none", *options(ann.files)) as worker:
            assert await worker.wait_async() == 3
        assert f"no TLS with {server.remote}: {says}" in worker.log
        if "hosts" in given:
            for name, expected in (("elsewhere", 0), ("nowhere", 5)):
                done = await client(server.remote, "info", f"--tls-name={name}", *options(ann.files))
                assert done.returncode == expected


async def test_who_speaks_tls_and_who_does_not(tmp_path: Path, authority: Authority) -> None:
    ann = authority.issue("ann", uris=OPERATOR + WORKER)
    async with serving(tmp_path, authority.server()) as server:
        done = await client(server.remote, "info")
        assert done.returncode == 5
        assert b"give --tls-ca, --tls-cert and --tls-key" in done.stderr
        assert_one_line(done.stderr)
        with running_worker(server, "p1", "--sandbox=none") as worker:
            assert await worker.wait_async() == 4
        assert "give --tls-ca, --tls-cert and --tls-key" in worker.log
    (tmp_path / "plain").mkdir()
    async with run_server(tmp_path / "plain") as server:
        status, line = await told(server.remote, ann)
        assert status == 5
        assert "it speaks no TLS: leave --tls-ca, --tls-cert and --tls-key out" in line
        with running_worker(server, "p1", "--sandbox=none", *options(ann.files)) as worker:
            assert await worker.wait_async() == 3
        assert "it speaks no TLS: leave --tls-ca" in worker.log


async def test_files_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    ann, bob = (authority.issue(name, uris=OPERATOR) for name in ("ann", "bob"))
    async with serving(tmp_path, authority.server()) as server:
        for name, path, says in (
            ("ca", tmp_path / "none.pem", "none.pem: No such file or directory"),
            ("cert", ann.files.key, "there is no certificate in the one, or no key in the other"),
            ("key", bob.files.key, "the key is not that of the certificate"),
        ):
            wrong = [*options(ann.files), f"--tls-{name}={path}"]
            done = await client(server.remote, "info", *wrong)
            assert done.returncode == 2
            assert says.encode() in done.stderr
            assert_one_line(done.stderr)
            with running_worker(server, "p1", "--loop", "--sandbox=none", *wrong) as worker:
                assert await worker.wait_async() == 2
            assert says in worker.log


@pytest.mark.parametrize(
    "uris", [OBSERVER, ("urn:builder:worker:p2",), WORKER], ids=["no worker", "of another platform", "revoked"]
)
async def test_a_worker_that_is_refused_says_so_once_and_waits(
    tmp_path: Path, authority: Authority, uris: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "builder_server")
    eve, good = authority.issue("eve", uris=uris), authority.issue("good", uris=WORKER)
    if uris == WORKER:
        authority.revoke(eve)
    async with serving(tmp_path, authority.server()) as server:
        with running_worker(server, "p1", "--loop", "--slots=3", "--sandbox=none", *options(eve.files)) as worker:
            reason = "refuses this certificate" if uris == WORKER else "refuses this worker: "
            await worker.wait_for_log(reason)
            seen = len(refusals(caplog))
            await eventually(lambda: len(refusals(caplog)) > seen + 3, what="another attempt of each slot")
            assert worker.log.count("next attempt in") == 1
            assert worker.log.count(reason) == 1
            assert worker.log.count("waiting for a job") == (0 if uris == WORKER else 3), "of each slot at first"
            # what is mended counts without a restart
            good.files.key.replace(eve.files.key)
            good.files.certificate.replace(eve.files.certificate)
            await eventually(lambda: "good" in caplog.text, what="a worker that waits")


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if "is revoked" in message or "needs the role" in message]


# --- what options say ----------------------------------------------------------------------------------------------


def test_all_of_tls_or_nothing() -> None:
    whole = {"tls-ca": "a", "tls-cert": "b", "tls-key": "c"}
    assert Servers.of("h:1", {}).tls is None
    assert Servers.of("h:1", whole).tls == Tls(ca="a", certificate="b", key="c")
    assert Servers.of("unix:/x", whole).tls is None
    assert Servers.of("h:1", Tls(ca="a", certificate="b", key="c", name="n").options()).tls == Tls(
        ca="a", certificate="b", key="c", name="n"
    )
    with pytest.raises(IncompleteTls, match=r"there is no --tls-ca and no --tls-key$"):
        Servers.of("h:1", {"tls-cert": "b", "tls-key": "", "tls-name": "n"})
    with pytest.raises(IncompleteTls):
        Servers.of("h:1", {"tls-name": "n"})
