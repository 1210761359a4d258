"""The way to the receiver: what the environment says of it, who is trusted, and what is said when it leads nowhere."""

import datetime as dt
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from attrs import frozen
from endpoints import CREDENTIALS, Endpoint, one_build, serving, socks_proxy, wait_failed, wait_state
from farm import DEADLINE, environment, free_port, launch_server, log_lines, run_server
from operators import need
from scripted import info

from builder.errors import InvalidEnvironment
from builder_server.receiver import Receiver, keeps_password

NAME = "builds.invalid"
"""A host that only a proxy finds."""


@frozen(kw_only=True)
class Authority:
    """A certificate authority, and where others find its certificate."""

    ca: trustme.CA
    file: Path
    directory: Path

    def context(self, host: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
        """Return what a server needs that this authority says is ``host``."""
        now = dt.datetime.now(dt.UTC)
        begin, end = (now - dt.timedelta(days=days) for days in (20, 10 if expired else -10))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(host, not_before=begin, not_after=end).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def make_authority(root: Path) -> Authority:
    ca, directory = trustme.CA(), root / "certs"
    directory.mkdir()
    ca.cert_pem.write_to_path(str(root / "ca.pem"))
    # as update-ca-certificates leaves it: the name is a hash, which lets OpenSSL find it
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", root / "ca.pem"],
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    ).stdout.decode()
    (directory / f"{hashed.strip()}.0").symlink_to(root / "ca.pem")
    return Authority(ca=ca, file=root / "ca.pem", directory=directory)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


# --- the environment -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"NO_PROXY": "fd00::/8"},
        {"no_proxy": "localhost, fd00::/8,[::1],10.0.0.0/8 .example.org,127.0.0.0/8", "http_proxy": "127.0.0.1:1"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "a, 127.0.0.1 , b"},
        {"ALL_PROXY": "", "HTTPS_PROXY": "http://127.0.0.1:1"},
        {"SSL_CERT_FILE": "", "SSL_CERT_DIR": "", "SSLKEYLOGFILE": "/nonexistent/file"},
        {"REQUESTS_CA_BUNDLE": "/nonexistent", "FTP_PROXY": "nonsense://"},
        {"SSL_CERT_DIR": "/nonexistent:/etc"},
    ],
)
async def test_what_does_not_concern_it(tmp_path: Path, endpoint: Endpoint, environ: dict[str, str]) -> None:
    async with run_server(tmp_path, upload=endpoint.url(), env=environ) as server:
        await wait_state(server, await one_build(server), "done")
        assert len(endpoint.requests) == 1


def test_what_can_not_be_used_is_named_before_it_listens(tmp_path: Path) -> None:
    server = launch_server(tmp_path, "--upload=http://127.0.0.1:9/u", env={"HTTP_PROXY": "http://secret@[::1"})
    output, _ = server.process.communicate(timeout=DEADLINE)
    assert (server.process.returncode, output) == (2, b"")
    assert server.log.startswith("builder-server: HTTP_PROXY")
    assert server.log.count("\n") == 1
    assert "secret" not in server.log


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTP_PROXY", "http://secret@[::1"),
        ("https_proxy", "https://secret:99999"),
        ("ALL_PROXY", "socks4://secret"),
        ("all_proxy", "://secret"),
        ("SSL_CERT_FILE", "/nonexistent"),
        ("SSL_CERT_FILE", "/etc"),
        ("SSL_CERT_FILE", "/etc/passwd"),
        ("SSL_CERT_DIR", "/nonexistent"),
        ("SSL_CERT_DIR", "/etc/passwd"),
    ],
)
def test_what_is_wrong_is_named_without_its_secrets(variable: str, value: str) -> None:
    with pytest.raises(InvalidEnvironment) as refused:
        Receiver.at("http://127.0.0.1:9/u", {variable: value})
    assert str(refused.value).startswith(variable)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_server_that_uploads_nothing_does_not_look_at_it(tmp_path: Path) -> None:
    async with run_server(tmp_path, env={"SSL_CERT_FILE": "/nonexistent", "ALL_PROXY": "://"}) as server:
        assert (await info(server)).running == ()


async def test_a_proxy_of_http_is_used(tmp_path: Path, endpoint: Endpoint) -> None:
    env = {"http_proxy": f"http://pro:xy@127.0.0.1:{endpoint.port}"}
    async with run_server(tmp_path, upload=f"http://a:b@{NAME}/upload", env=env) as server:
        await wait_state(server, await one_build(server), "done")
        (request,) = endpoint.requests
        assert request.path == f"http://{NAME}/upload"
        assert request.headers["Host"] == NAME
        assert request.headers["Proxy-Authorization"] == "Basic cHJvOnh5"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_is_used(tmp_path: Path, authority: Authority, scheme: str) -> None:
    with serving(authority.context(NAME)) as endpoint, socks_proxy() as (port, asked):
        env = {"ALL_PROXY": f"{scheme}://127.0.0.1:{port}", "SSL_CERT_FILE": str(authority.file)}
        async with run_server(tmp_path, upload=f"https://{NAME}:{endpoint.port}/upload", env=env) as server:
            await wait_state(server, await one_build(server), "done")
            assert asked == [f"{NAME}:{endpoint.port}"]
            assert len(endpoint.requests) == 1


# --- trust ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_an_authority_that_the_operator_names_is_trusted(
    tmp_path: Path, authority: Authority, variable: str
) -> None:
    env = {variable: str(authority.file if variable == "SSL_CERT_FILE" else authority.directory)}
    with serving(authority.context()) as endpoint:
        async with run_server(tmp_path, upload=endpoint.url(), env=env) as server:
            await wait_state(server, await one_build(server), "done")
            assert endpoint.requests[0].headers["Authorization"] == CREDENTIALS


CONNECT = """
import socket, ssl, sys
from builder_server.trust import trusting
context = trusting({})
if len(sys.argv) == 1:
    sys.exit(not context.get_ca_certs())
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30) as sock:
    context.wrap_socket(sock, server_hostname="127.0.0.1").close()
"""


def with_system_store(store: Path, *arguments: str) -> int:
    """Run CONNECT where the system's trust store is another directory; return its exit status."""
    place = Path(ssl.get_default_verify_paths().openssl_capath).resolve()
    mounts = ["--dev-bind", "/", "/", "--bind", str(store), str(place)]
    done = subprocess.run(
        ["bwrap", *mounts, "--", sys.executable, "-c", CONNECT, *arguments],
        env=environment(),
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0 or b"CERTIFICATE_VERIFY_FAILED" in done.stderr, done.stderr
    return done.returncode


def test_an_authority_that_the_system_trusts_is_trusted(tmp_path: Path, authority: Authority) -> None:
    need("bubblewrap", ["bwrap"])
    with serving(authority.context()) as endpoint:
        assert with_system_store(authority.directory, str(endpoint.port)) == 0
        (tmp_path / "none").mkdir()
        assert with_system_store(tmp_path / "none", str(endpoint.port)) != 0
        # a system without any is not left with none
        assert with_system_store(tmp_path / "none") == 0


# --- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1:{unknown}/u?token", "certificate verify failed: unable to get local issuer certificate"),
        ("https://127.0.0.1:{expired}/u?token", "certificate verify failed: certificate has expired"),
        (
            "https://127.0.0.1:{other}/u?token",
            "certificate verify failed: IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
        ("https://127.0.0.1:{plain}/u?token", "TLS: wrong version number"),
        ("https://127.0.0.1:{closed}/u?token", "Connection refused"),
        ("http://127.0.0.1:{closed}/u?token", "Connection refused"),
        ("http://127.0.0.1:{unknown}/u?token", "Server disconnected without sending a response"),
        ("http://builds.invalid/u?token", "Name or service not known"),
    ],
)
async def test_the_first_cause_is_told(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, url: str, reason: str
) -> None:
    (tmp_path / "unknown").mkdir()
    unknown = make_authority(tmp_path / "unknown")
    with (
        serving(unknown.context()) as one,
        serving(authority.context(expired=True)) as two,
        serving(authority.context("10.0.0.1")) as three,
        serving() as plain,
    ):
        url = url.format(unknown=one.port, expired=two.port, other=three.port, plain=plain.port, closed=free_port())
        env = {"SSL_CERT_FILE": str(authority.file)}
        async with run_server(tmp_path, upload=url, env=env) as server:
            uuid = await one_build(server)
            await wait_failed(server, uuid)
            (line,) = log_lines(caplog.text, "not uploaded")
            assert f"it stays at {server.full('a', uuid)}: {url.partition('?')[0]}: {reason}" in line
            assert "Traceback" not in caplog.text


async def test_a_proxy_that_is_not_there_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    env = {"ALL_PROXY": f"socks5://user:secret@127.0.0.1:{port}"}
    async with run_server(tmp_path, upload=f"http://{NAME}/u", env=env) as server:
        await wait_failed(server, await one_build(server))
        assert f"http://{NAME}/u, through the proxy socks5://127.0.0.1:{port}: Connection refused" in caplog.text
        assert "secret" not in caplog.text


# --- passwords -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target", "kept"),
    [
        ("http://a/u", "http://a/v", True),
        ("http://a/u", "http://a:80/v", True),
        ("http://a/u", "https://a/u", True),
        ("http://a:80/u", "https://A:443/u", True),
        ("http://a:8080/u", "https://a:8443/u", True),
        ("http://a:8080/u", "https://a/u", True),
        ("https://a/u", "https://a:443/v", True),
        ("https://a/u", "http://a/u", False),
        ("https://a:8443/u", "http://a:8443/u", False),
        ("http://a/u", "http://a:8080/u", False),
        ("https://a/u", "https://a:8443/u", False),
        ("http://a/u", "http://b/u", False),
        ("http://a/u", "https://b/u", False),
        ("http://a/u", "https://sub.a/u", False),
        ("http://sub.a/u", "https://a/u", False),
        ("http://127.0.0.1/u", "https://localhost/u", False),
        ("http://[::1]/u", "https://[::1]/u", True),
    ],
)
def test_where_a_password_goes(url: str, target: str, kept: bool) -> None:  # noqa: FBT001
    assert keeps_password(httpx.URL(url), httpx.URL(target)) is kept


async def test_a_redirect_to_https_keeps_the_password_and_one_back_does_not(
    tmp_path: Path, authority: Authority, endpoint: Endpoint
) -> None:
    env = {"SSL_CERT_FILE": str(authority.file)}
    with serving(authority.context()) as safe, serving() as plain:
        endpoint.status, endpoint.location = 308, f"https://127.0.0.1:{safe.port}/upload"
        safe.status, safe.location = 307, f"http://127.0.0.1:{plain.port}/upload"
        async with run_server(tmp_path, upload=endpoint.url(), env=env) as server:
            await wait_state(server, await one_build(server), "done")
            assert safe.requests[0].headers["Authorization"] == CREDENTIALS
            assert "Authorization" not in plain.requests[0].headers
