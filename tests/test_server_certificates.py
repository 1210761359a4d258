"""The authority of `builder-server certificates`: what it makes, what it refuses, and what a crash leaves of it."""

import contextlib
import datetime as dt
import fcntl
import json
import os
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from farm import DEADLINE, eventually_async, run_server
from scripted import CLIENT

from builder import codec
from builder.errors import BuilderError
from builder.framing import frame
from builder.roles import HolderRole, Identity
from builder.runtime.encrypted import EncryptedStream
from builder.runtime.tls import TlsFiles
from builder_server import issuing
from builder_server.authority import Authority, Certified
from builder_server.cli import command
from builder_server.issuing import NotCertified

NOW = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
OPERATOR, WORKER = HolderRole.OPERATOR, HolderRole.WORKER


def run(directory: Path, *arguments: str) -> Result:
    """Run a command of the authority in CONFIG-DIR/certificates."""
    return CliRunner().invoke(command, ["--config-dir", str(directory), "certificates", *arguments])


def done(directory: Path, *arguments: str) -> str:
    result = run(directory, *arguments)
    assert result.exception is None, result.output
    return result.output


def refused(directory: Path, *arguments: str) -> str:
    """Return the one line with which a command is refused."""
    error = run(directory, *arguments).exception
    assert isinstance(error, BuilderError)
    assert error.exit_code == 8
    assert str(error).isprintable()
    return str(error)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.init(tmp_path / "certificates", None, ["localhost", "192.0.2.7"], days=365, now=NOW)


def issue(authority: Authority, name: str = "ann", now: dt.datetime = NOW) -> Certified:
    return authority.issue(name, [OPERATOR], [], days=30, now=now)


def states(authority: Authority, now: dt.datetime = NOW) -> list[tuple[str, bool]]:
    return [(each.name, each.is_good(now)) for each in authority.listed() if not each.is_of_server]


def crl(authority: Authority) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl((authority.directory / "crl.pem").read_bytes())


# --- what is made --------------------------------------------------------------------------------------------------


def test_the_library_that_checks_takes_what_is_made(tmp_path: Path) -> None:
    """A handshake in memory, with the identity that the server will read."""
    now = dt.datetime.now(dt.UTC)
    authority = Authority.init(tmp_path / "c", None, ["localhost"], days=1, now=now)
    authority.issue("w", [WORKER, OPERATOR], ["de@bian 12_x"], days=1, now=now)
    ca = authority.directory / "ca.pem"
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, name in ((ours, "server"), (theirs, "w")):
        context.load_cert_chain(authority.certificate_of(name), authority.key_of(name))
        context.load_verify_locations(ca)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ours.verify_mode = ssl.CERT_REQUIRED
    ours.load_verify_locations(authority.directory / "crl.pem")
    ours.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ours.wrap_bio(there, back, server_side=True)
    client = theirs.wrap_bio(back, there, server_hostname="localhost")
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    who = Identity.of(server.getpeercert() or {})
    assert who.name == "w"
    assert who.roles == {WORKER, OPERATOR}
    assert who.platforms == frozenset({"de@bian 12_x"})
    assert client.getpeercert()


def test_what_each_is_for(authority: Authority) -> None:
    """A server asks other servers of its farm as a client does."""
    issue(authority)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for name, usages in (("server", both), ("ann", [ExtendedKeyUsageOID.CLIENT_AUTH])):
        made = x509.load_pem_x509_certificate(authority.certificate_of(name).read_bytes())
        assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        signing_key = made.public_key()
        assert signing_key != authority.certificate.public_key()
        made.verify_directly_issued_by(authority.certificate)


def test_serial_numbers_are_random_and_as_the_server_sees_them(authority: Authority) -> None:
    found = {issue(authority, f"h{number}").serial for number in range(20)}
    assert len({serial[:8] for serial in found}) == 20
    assert all(len(serial) == 20 for serial in found)
    assert issuing.serial_text(0xABC) == "0ABC"


def test_nothing_lasts_longer_than_the_authority(authority: Authority) -> None:
    end = authority.certificate.not_valid_after_utc
    made = authority.issue("ann", [OPERATOR], [], days=365, now=end - 10 * DAY)
    assert made.until == end
    with pytest.raises(NotCertified, match=r"has ended, on 2036-06-28: make a new one in another directory"):
        issue(authority, "bob", now=end + DAY)


def test_the_list_is_good_for_as_long_as_the_authority(authority: Authority) -> None:
    """A server that looks at it must not shut everybody out because nobody has revoked anything for a month."""
    assert crl(authority).next_update_utc == authority.certificate.not_valid_after_utc
    assert crl(authority).last_update_utc < NOW


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_keys_are_their_owners_alone(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first byte on: what is looked at is the mode with which the file is made."""
    modes: list[int] = []
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            modes.append(mode)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", opened)
    before = os.umask(umask)
    try:
        authority = Authority.init(tmp_path / "c", None, ["localhost"], days=1, now=NOW)
        issue(authority)
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    mode = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.directory.rglob("*")}
    assert {mode[name] for name in ("ca.key", "server.key", "ann.key")} == {0o600}
    assert {mode[name] for name in ("holders", "issued")} == {0o700}
    assert {mode[name] for name in ("ca.pem", "server.pem", "crl.pem", "ann.pem")} == {
        0o644
    }  # also for a server's user
    assert stat.S_IMODE(authority.directory.stat().st_mode) == 0o755


def test_the_authoritys_key_may_be_elsewhere(tmp_path: Path) -> None:
    key = tmp_path / "stick" / "farm.key"
    key.parent.mkdir()
    done(tmp_path, "--ca-key", str(key), "init", "--name", "localhost")
    assert not (tmp_path / "certificates" / "ca.key").exists()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "name it with --ca-key" in refused(tmp_path, "issue", "ann", "--role", "operator")
    done(tmp_path, "--ca-key", str(key), "issue", "ann", "--role", "operator")
    assert "ann" in done(tmp_path, "list")  # which needs no key
    other = Authority.init(tmp_path / "other", None, ["localhost"], days=1, now=NOW)
    assert "not the key of the authority" in refused(tmp_path, "--ca-key", str(other.key), "revoke", "ann")
    assert "may be the key of another" in refused(
        tmp_path, "--directory", str(tmp_path / "third"), "--ca-key", str(key), "init", "--name", "x"
    )


# --- commands ------------------------------------------------------------------------------------------------------


def test_a_day_of_an_authority(tmp_path: Path) -> None:
    said = done(tmp_path, "init", "--name", "build.example.org", "--name", "2001:db8::1")
    directory = tmp_path / "certificates"
    assert (
        f"--tls-cert {directory}/server.pem --tls-key {directory}/server.key --tls-client-ca {directory}/ca.pem" in said
    )
    said = done(tmp_path, "issue", "ann", "--role", "operator")
    assert f"Move to its holder, and nobody else: {directory}/holders/ann.key\n" in said
    assert "export BUILDER_TLS_CA=ca.pem BUILDER_TLS_CERT=ann.pem BUILDER_TLS_KEY=ann.key" in said
    done(tmp_path, "issue", "w1", "--role", "worker", "--platform", "p1", "--platform", "p2", "--days", "10")
    done(tmp_path, "issue", "eve", "--role", "observer", "--role", "worker")
    (directory / "holders" / "ann.key").unlink()  # it was moved
    assert "ann.pem to its holder, in place of the one before" in done(tmp_path, "renew", "ann")
    assert "the server takes it by itself" in done(tmp_path, "renew", "server", "--name", "farm.example.org")
    assert "of eve" in done(tmp_path, "revoke", "eve", "--reason", "key-compromise")
    table = [line.split()[:1] + line.split("Z  ")[1:] for line in done(tmp_path, "list").splitlines()[1:]]
    assert table == [
        ["server", "valid"],
        ["server", "renewed"],
        ["ann", "valid"],
        ["ann", "renewed"],
        ["eve", "revoked"],
        ["w1", "expires soon"],
    ]
    rows = json.loads(done(tmp_path, "list", "--json"))["certificates"]
    assert rows[0]["roles"] == ["farm.example.org"]
    assert rows[1]["roles"] == ["build.example.org", "2001:db8::1"]
    assert [row["reason"] for row in rows if row["name"] == "eve"] == ["key-compromise"]
    assert rows[-1]["roles"] == ["worker:p1", "worker:p2"]


def test_renewed_for_the_same_key_and_roles(authority: Authority) -> None:
    first = issue(authority)
    second = authority.renew("ann", [], days=90, now=NOW + DAY)
    assert second.certificate.public_key() == first.certificate.public_key()
    assert issuing.identity(second.certificate).roles == {OPERATOR}
    assert second.until > first.until
    assert authority.certificate_of("ann").read_bytes() == issuing.pem(second.certificate)
    assert states(authority) == [("ann", True), ("ann", True)]


def test_whoever_is_revoked_is_so_with_all_that_was_renewed(authority: Authority) -> None:
    first = issue(authority)
    second = authority.renew("ann", [], days=90, now=NOW + DAY)
    issue(authority, "bob")
    authority.revoke("ann", x509.ReasonFlags.unspecified, now=NOW + DAY)
    assert {each.serial_number for each in crl(authority)} == {
        each.certificate.serial_number for each in (first, second)
    }
    with pytest.raises(NotCertified, match="is revoked, and its key stays so: 'issue' makes a new one"):
        authority.renew("ann", [], days=90, now=NOW + DAY)
    with pytest.raises(NotCertified, match="all of ann is revoked or expired already"):
        authority.revoke("ann", x509.ReasonFlags.unspecified, now=NOW + DAY)
    third = issue(authority, now=NOW + 2 * DAY)
    assert third.certificate.public_key() != first.certificate.public_key()
    assert states(authority) == [("ann", True), ("ann", False), ("ann", False), ("bob", True)]


def test_one_is_revoked_by_its_serial_number(authority: Authority) -> None:
    first = issue(authority)
    authority.renew("ann", [], days=90, now=NOW + DAY)
    spelled = ":".join(first.serial[place : place + 2].lower() for place in range(0, 20, 2))  # as OpenSSL shows it
    authority.revoke(spelled, x509.ReasonFlags.superseded, now=NOW + DAY)
    assert states(authority) == [("ann", True), ("ann", False)]


def test_what_has_expired_is_issued_or_renewed_again(authority: Authority) -> None:
    issue(authority)
    issue(authority, "bob")
    later = NOW + 31 * DAY
    assert states(authority, later) == [("ann", False), ("bob", False)]
    issue(authority, now=later)
    authority.renew("bob", [], days=30, now=later)
    assert [name for name, is_good in states(authority, later) if is_good] == ["ann", "bob"]


async def test_a_server_that_runs_takes_what_changes(tmp_path: Path) -> None:
    root = tmp_path / "server"
    root.mkdir()
    done(tmp_path, "init", "--name", "localhost", "--name", "127.0.0.1")
    for name, role in (("ann", "operator"), ("eve", "observer")):
        done(tmp_path, "issue", name, "--role", role)
    directory = tmp_path / "certificates"
    own = TlsFiles(certificate=directory / "server.pem", key=directory / "server.key", ca=directory / "ca.pem")

    def context(name: str) -> ssl.SSLContext:
        path = directory / "holders" / name
        files = TlsFiles(certificate=path.with_suffix(".pem"), key=path.with_suffix(".key"), ca=own.ca)
        return files.peer_context()

    async def served(name: str) -> int | None:
        """Return the serial number of the server's certificate if somebody is served."""
        transport = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with EncryptedStream(transport, context(name), server_hostname="localhost") as stream:
            try:
                await stream.do_handshake()
                await stream.send_all(frame(codec.encode(CLIENT)))
                if not await stream.receive_some():
                    return None
            except trio.BrokenResourceError:
                return None
            return x509.load_der_x509_certificate(stream.chain[0]).serial_number

    async with run_server(root, tls=own) as server:
        before = await served("eve")
        assert before
        done(tmp_path, "renew", "server")
        renewed = x509.load_pem_x509_certificate(own.certificate.read_bytes()).serial_number

        async def is_renewed() -> bool:
            return await served("ann") == renewed

        await eventually_async(is_renewed, what="the renewed certificate")
        done(tmp_path, "revoke", "eve")

        async def is_refused() -> bool:
            return await served("eve") is None

        await eventually_async(is_refused, what="the revocation")
        assert await served("ann") == renewed
        done(tmp_path, "issue", "eve", "--role", "observer")
        assert await served("eve") == renewed


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc/x", ".x", "-x", "a b", "a\nb", "\x1b[31m", "a\0b", "å", "a" * 65, "server", "a\u202eb", "\udc80"],
)  # fmt: skip
def test_names_that_are_odd(authority: Authority, name: str) -> None:
    before = sorted(authority.directory.rglob("*"))
    with pytest.raises(NotCertified) as caught:
        issue(authority, name)
    assert str(caught.value).isprintable()
    assert sorted(authority.directory.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "A-1.b_c@x+y", "9", "a" * 64])
def test_names_that_are_taken(authority: Authority, name: str) -> None:
    issue(authority, name)
    assert authority.key_of(name).exists()


@pytest.mark.parametrize(
    "host", ["", "a b", "a:1", "[::1]", "::1%eth0", "*.example.org", "hôst", "x" * 254, "a\nb", "http://x"]
)
def test_hosts_that_are_none(tmp_path: Path, host: str) -> None:
    assert "is no host name and no address" in refused(tmp_path, "init", "--name", host)
    assert list(tmp_path.iterdir()) == []


def test_what_contradicts_itself(tmp_path: Path) -> None:
    done(tmp_path, "init", "--name", "localhost")
    assert "needs --role worker" in refused(tmp_path, "issue", "ann", "--role", "operator", "--platform", "p")
    assert "contains a slash" in refused(tmp_path, "issue", "ann", "--role", "worker", "--platform", "../p")
    assert "has no certificate" in refused(tmp_path, "renew", "ann")
    assert "'list' shows all" in refused(tmp_path, "revoke", "ann")
    for target in ("../../x", "AB:CD", "::", "", "F" * 100, "\x1b[2J"):
        assert "there is no certificate" in refused(tmp_path, "revoke", target)
    assert "clients do not ask" in refused(tmp_path, "revoke", "server")
    done(tmp_path, "issue", "ann", "--role", "operator")
    assert "'renew' makes it last longer" in refused(tmp_path, "issue", "ann", "--role", "observer")
    assert "is no server" in refused(tmp_path, "renew", "ann", "--name", "x")
    for wrong in (["issue", "ann"], ["issue", "ann", "--role", "king"], ["init"], ["renew", "ann", "--days", "0"]):
        assert run(tmp_path, *wrong).exit_code == 2


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    done(tmp_path, "init", "--name", "localhost")
    before = (tmp_path / "certificates" / "ca.key").read_bytes()
    assert "is there already" in refused(tmp_path, "init", "--name", "localhost")
    assert (tmp_path / "certificates" / "ca.key").read_bytes() == before
    assert "create it" in refused(tmp_path, "--directory", str(tmp_path / "n" / "c"), "init", "--name", "localhost")
    assert "'init' makes one" in refused(tmp_path / "n", "list")


@pytest.mark.parametrize("name", ["ca.pem", "crl.pem", "ca.key", "issued"])
@pytest.mark.parametrize("how", ["missing", "damaged", "another's"])
def test_damage_is_told_in_one_line_and_nothing_is_made_up(tmp_path: Path, name: str, how: str) -> None:
    done(tmp_path, "init", "--name", "localhost")
    done(tmp_path, "--directory", str(tmp_path / "other"), "init", "--name", "localhost")
    path = tmp_path / "certificates" / name
    if name == "issued":
        (path,) = path.iterdir()
    if how == "missing":
        path.unlink()
        if name == "issued":
            return
    elif how == "damaged":
        path.write_bytes(b"-----BEGIN NOTHING-----\n")
    elif name != "issued":
        path.write_bytes((tmp_path / "other" / name).read_bytes())
    else:
        return
    assert refused(tmp_path, "issue", "ann", "--role", "operator")


def test_root_writes_no_files_into_others_directories(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    owner = authority.directory.stat()
    monkeypatch.setattr(Path, "stat", lambda _path: os.stat_result((*owner[:4], 4711, *owner[5:])))
    with pytest.raises(NotCertified, match="belongs to user 4711: run this as that user, with runuser -u NAME --"):
        issue(authority)


# --- crashes and crowds --------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


class Crashing:
    """Ends the process at one of the steps that change the disk; ``step`` counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.step = 0
        self._at = at
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            self.step += 1
            if self.step == self._at:
                raise Crash
            return real(*arguments, **named)  # type: ignore[operator]

        return call


STEPS = 200


def test_an_init_that_crashed_is_done_again(tmp_path: Path) -> None:
    for at in range(1, STEPS):
        directory = tmp_path / str(at)
        directory.mkdir()
        with pytest.MonkeyPatch.context() as monkeypatch:
            Crashing(monkeypatch, at)
            try:
                Authority.init(directory / "c", None, ["localhost"], days=1, now=NOW)
            except Crash:
                pass
            else:
                break
        if not (directory / "c").exists():
            Authority.init(directory / "c", None, ["localhost"], days=1, now=NOW)
        issue(Authority.open(directory / "c", None))
        assert not (directory / ".c.part").exists()
    assert 20 < at < STEPS - 1


def test_whatever_crashes_all_is_whole(tmp_path: Path) -> None:
    """What was revoked stays so; what was not handed out can be revoked; and the next command works."""
    for at in range(1, STEPS):
        authority = Authority.init(tmp_path / str(at), None, ["localhost"], days=365, now=NOW)
        issue(authority, "bob")
        authority.revoke("bob", x509.ReasonFlags.unspecified, now=NOW)
        with pytest.MonkeyPatch.context() as monkeypatch:
            Crashing(monkeypatch, at)
            try:
                issue(authority)
                authority.renew("ann", [], days=60, now=NOW + DAY)
                authority.revoke("ann", x509.ReasonFlags.unspecified, now=NOW + DAY)
            except Crash:
                pass
            else:
                break
        assert ("bob", False) in states(authority)
        path = authority.certificate_of("ann")
        if path.exists():
            handed_out = x509.load_pem_x509_certificate(path.read_bytes())
            assert handed_out in [each.certificate for each in authority.listed()]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(path, authority.key_of("ann"))  # a pair
        if ("ann", True) in states(authority):
            authority.revoke("ann", x509.ReasonFlags.unspecified, now=NOW + DAY)
        issue(authority, now=NOW + DAY)
        assert states(authority, NOW + DAY).count(("ann", True)) == 1
    assert 20 < at < STEPS - 1


async def test_nobody_keeps_a_certificate_from_being_revoked(authority: Authority, tmp_path: Path) -> None:
    """Other users can open the directory, and so lock it, but nothing in it that counts."""
    issue(authority)
    descriptors = [os.open(path, os.O_RDONLY) for path in (authority.directory, tmp_path)]
    try:
        for descriptor in descriptors:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with trio.fail_after(DEADLINE):
            revoke = partial(authority.revoke, "ann", x509.ReasonFlags.unspecified, now=NOW)
            await trio.to_thread.run_sync(revoke, abandon_on_cancel=True)
        with pytest.raises(NotCertified, match=f"another program has {tmp_path} locked"):
            Authority.init(tmp_path / "another", None, ["localhost"], days=1, now=NOW)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert states(authority) == [("ann", False)]
    closed = [path for path in authority.directory.iterdir() if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in closed} == {0o700}


def test_many_at_once(authority: Authority) -> None:
    """Each has its certificate, or was told that there is one; none that was revoked is forgotten."""
    start = threading.Barrier(8)

    def work(number: int) -> str:
        start.wait()
        issue(authority, f"own{number}")
        authority.revoke(f"own{number}", x509.ReasonFlags.unspecified, now=NOW)
        try:
            issue(authority, "shared")
        except NotCertified as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(work, range(8)))
    assert said.count("") == 1
    assert len(list(crl(authority))) == 8
    assert states(authority) == [*((f"own{number}", False) for number in range(8)), ("shared", True)]
    assert crl(authority).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 9
