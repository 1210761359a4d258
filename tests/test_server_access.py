"""Who may do what, by certificates: with real ones, good and bad, and a real server."""

import datetime as dt
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from authorities import DAY, Authority, Issued, now
from clocks import Clock
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from farm import DEADLINE, LocalServer, eventually, log_lines, run_client, run_server, start_server
from hypothesis import Phase, find, settings
from scripted import CLIENT, OUR_WORKER, OURS, WORKER, ask_job, connect, given_job, schedule
from strategies import BY_KIND
from visitors import shown

from builder.errors import ConnectionEnded
from builder.extension.order import ALL
from builder.extension.schedule import ShowJob
from builder.extension.watching import Look, Looked
from builder.extension.working import AskJob, Continue, GiveJob, NoJob, Return
from builder.messages import Execute, Failure, Hello, Info, InfoReply, JobRequested, Kind, Message, Success
from builder.model import Instant
from builder.order import OPENING, State
from builder.roles import HolderRole, worker_uri
from builder.runtime.tls import InvalidCredentials
from builder_server import certified, expiry
from builder_server.keyring import Keyring
from builder_server.permission import NEEDS
from builder_server.revocation import read_revoked
from builder_server.server import wall_clock
from builder_server.store import newcomers

ROLES = {role.value: role for role in HolderRole}


@pytest.fixture(autouse=True)
def _all_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def serving(root: Path, authority: Authority, **options: Any) -> AsyncIterator[LocalServer]:
    options["tls"] = options.get("tls") or authority.server().files
    async with run_server(root, **options) as found:
        yield found


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[LocalServer]:
    async with serving(tmp_path, authority) as found:
        yield found


def holder(authority: Authority, *roles: HolderRole, **options: Any) -> Issued:
    return authority.issue("alice", uris=[role.uri for role in roles], **options)


# --- roles ---------------------------------------------------------------------------------------------------------


def kinds(*, hello: Hello) -> list[Kind]:
    """Return what a peer may send right after that hello."""
    protocol = ALL[hello.role, hello.version]
    return [
        kind
        for state in (State.ASKING, State.REQUESTING)
        for kind in protocol.peer.get(state, {})
        if kind.__name__ not in ("Alive", "Relay")  # the latter is another server's, see test_server_relays
    ]


def test_every_kind_of_message_stands_in_the_table() -> None:
    tables = [OPENING.peer, *(protocol.peer for protocol in ALL.values())]
    assert {kind for table in tables for state in table.values() for kind in state} == set(NEEDS)


@pytest.mark.parametrize(
    "roles", [(), ("worker",), ("operator",), ("observer",), ("provisioner",), ("worker", "observer")]
)
async def test_all_commands_of_all_roles(
    roles: tuple[str, ...], server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    mine = holder(authority, *(ROLES[role] for role in roles))
    within = {"operator": {HolderRole.OBSERVER, HolderRole.PROVISIONER}, "provisioner": {HolderRole.OBSERVER}}
    may = {ROLES[role] for role in roles}.union(*(within.get(role, set()) for role in roles))
    for hello in (CLIENT, OURS, WORKER, OUR_WORKER):
        for kind in kinds(hello=hello):
            needed = NEEDS[kind]
            request = plain(kind)
            async with shown(server, mine, hello) as peer:
                await peer.send(request)
                if needed in may:
                    await assert_not_refused(peer, kind)
                elif hello is WORKER:
                    assert await peer.wait_closed() == b""
                else:
                    refused = await peer.receive(Failure)
                    assert refused.message.startswith(f"{kind.__name__} needs the role {needed and needed.value}; ")
                    assert "\n" not in refused.message
            if needed not in may:
                said = "closed" if hello in (WORKER, OUR_WORKER) else "refused"
                await eventually(lambda: log_lines(caplog.text, "(alice): ", f"{kind.__name__} ", said))  # noqa: B023
            caplog.clear()


_plain: dict[Kind, Message] = {}


def plain(kind: Kind) -> Message:
    """Return a message of a kind that asks for nothing that takes long."""
    if kind in (JobRequested, AskJob):
        return JobRequested(platform="p1") if kind is JobRequested else AskJob(platform="p1", worker="w")
    if kind not in _plain:
        _plain[kind] = find(BY_KIND[kind], lambda _: True, settings=settings(phases=[Phase.generate], database=None))
    return _plain[kind]


async def assert_not_refused(peer: Any, kind: Kind) -> None:
    if kind in (JobRequested, AskJob) or kind.__name__ in ("Watch", "Observe"):
        with trio.move_on_after(0.05):  # it waits, and nothing is said
            answer = await peer.channel.receive()
            assert not isinstance(answer, Failure) or "role" not in answer.message
        return
    answer = await peer.receive_any()
    assert not isinstance(answer, Failure) or "needs the role" not in answer.message


async def test_a_worker_does_not_come_back_to_a_platform_that_its_certificate_has_no_more(
    server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    operator = holder(authority, HolderRole.OPERATOR)
    before = authority.issue("before", uris=[worker_uri("p1")])
    after = authority.issue("w1", uris=[worker_uri("p2")])
    async with shown(server, operator, CLIENT) as peer:
        await peer.send(schedule("a"))
        await peer.receive(Success)
    async with shown(server, before, OUR_WORKER) as peer:
        given = await ask_job(peer)
    async with shown(server, after, OUR_WORKER) as peer:
        await peer.send(Return(uuid=given.uuid, secret=given.secret, elapsed=0))
        refused = "Return for p1 needs the role worker for it; the certificate of w1 gives p2"
        assert await peer.receive(Failure) == Failure(message=refused)
        assert await peer.wait_closed() == b""
    assert await eventually(lambda: log_lines(caplog.text, "(w1): ", f"closed: {refused}"))
    async with shown(server, before, OUR_WORKER) as peer:  # it is still as it was
        assert await given.come_back(peer) == Continue(lines=0)


async def test_a_worker_of_some_platforms(
    server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    operator = holder(authority, HolderRole.OPERATOR)
    worker = authority.issue("w1", uris=[worker_uri("p1"), worker_uri("a b")])
    async with shown(server, operator, CLIENT) as peer:
        await peer.send(schedule("job", "a b"))
        await peer.receive(Success)
    async with shown(server, worker, OUR_WORKER) as peer:
        await peer.send(AskJob(platform="p2", worker="w"))
        assert await peer.receive(Failure) == Failure(
            message="AskJob for p2 needs the role worker for it; the certificate of w1 gives a b, p1"
        )
        assert await peer.wait_end() == "closed"
    async with shown(server, worker, WORKER) as peer:
        await peer.send(JobRequested(platform="p2"))
        assert await peer.wait_end() == "closed"
    assert await eventually(
        lambda: log_lines(caplog.text, "(w1): ", "JobRequested for p2 needs the role worker for it")
    )
    async with shown(server, worker, WORKER) as peer:
        await peer.send(JobRequested(platform="a b"))
        await (await given_job(peer)).finish()


async def test_a_worker_of_too_many_new_platforms(
    server: LocalServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told why it gets none; whoever knows a platform, or another holder, is not concerned."""
    monkeypatch.setattr(newcomers, "MOST", 1)
    one, other = (authority.issue(name, uris=[HolderRole.WORKER.uri]) for name in ("w1", "w2"))
    async with shown(server, one, OUR_WORKER) as peer, shown(server, other, OUR_WORKER) as waiting:
        await peer.send(AskJob(platform="p1", worker="w"))
        await eventually(lambda: server.query("select name from platform") == [("p1",)])
        await waiting.send(AskJob(platform="p2", worker="w"))
        await eventually(lambda: len(server.query("select name from platform")) == 2)
        for platform, is_refused in (("p3", True), ("p2", False)):
            async with shown(server, one, OUR_WORKER) as another:
                await another.send(AskJob(platform=platform, worker="w", wait=None if is_refused else 100))
                if is_refused:
                    assert "w1 has had 1 new platforms made within a day" in (await another.receive(Failure)).message
                else:
                    await another.receive(NoJob)


async def test_log_info_and_history_name_the_holder(
    server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    worker, operator = authority.issue("w1", uris=[HolderRole.WORKER.uri]), holder(authority, HolderRole.OPERATOR)
    async with shown(server, operator, CLIENT) as peer:
        await peer.send(schedule("job"))
        await peer.receive(Success)
    async with shown(server, operator, CLIENT) as peer:
        await peer.send(Execute(name="job"))
        await peer.receive(Success)
    assert log_lines(caplog.text, "(alice): ", "Schedule job")
    async with shown(server, worker, OUR_WORKER) as peer:
        await peer.send(AskJob(platform="p1", worker="slot"))
        await peer.receive(GiveJob)
        ((named,),) = server.query("select worker from build")
        assert named.startswith("w1 (127.0.0.1:")
        async with shown(server, operator, OURS) as client:
            pages = [page for page in await client.request(Look(entries=0, results=0)) if isinstance(page, Looked)]
            running = [build for page in pages for build in page.running]
            assert [(build.worker, build.holder) for build in running] == [("slot", "w1")]
    assert await eventually(lambda: log_lines(caplog.text, "begins at w1 (127.0.0.1:"))


# --- certificates --------------------------------------------------------------------------------------------------


async def is_let_in(server: LocalServer, mine: Issued) -> bool:
    """Return whether a server listens to a holder who may ask for everything."""
    try:
        async with shown(server, mine, CLIENT) as peer:
            await peer.send(Info())
            await peer.receive(InfoReply)
    except (trio.BrokenResourceError, ConnectionEnded, ssl.SSLError):
        return False
    return True


def expired(authority: Authority) -> Issued:
    return holder(authority, HolderRole.OPERATOR, end=now() - dt.timedelta(hours=1))


def not_yet_valid(authority: Authority) -> Issued:
    return holder(authority, HolderRole.OPERATOR, begin=now() + DAY)


def self_signed(authority: Authority) -> Issued:
    return holder(authority, HolderRole.OPERATOR, is_self_signed=True)


def of_another_authority(authority: Authority) -> Issued:
    other = Authority(authority.directory / "other")
    return other.issue("alice", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)


def of_an_authority_of_that_name(authority: Authority) -> Issued:
    other = Authority(authority.directory / "other", common=authority.common + " ")
    other.common = authority.common
    return other.issue("alice", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)


def of_a_server(authority: Authority) -> Issued:
    return holder(authority, HolderRole.OPERATOR, usages=[ExtendedKeyUsageOID.SERVER_AUTH])


def revoked(authority: Authority) -> Issued:
    found = holder(authority, HolderRole.OPERATOR)
    authority.revoke(found)
    return found


BAD = [
    (expired, "certificate verify failed: certificate has expired"),
    (not_yet_valid, "certificate verify failed: certificate is not yet valid"),
    (self_signed, "certificate verify failed: self-signed certificate"),
    (of_another_authority, "certificate verify failed: "),
    (of_an_authority_of_that_name, "certificate verify failed: "),
    (of_a_server, "certificate verify failed: unsuitable certificate purpose"),
    (revoked, "the certificate of alice is revoked"),
]


@pytest.mark.parametrize(("made", "reason"), BAD, ids=[made.__name__ for made, _ in BAD])
async def test_certificates_that_are_not_let_in(
    made: Any, reason: str, tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    mine = made(authority)
    async with serving(tmp_path, authority) as server:
        assert not await is_let_in(server, mine)
        assert await eventually(lambda: log_lines(caplog.text, "127.0.0.1:", "not let in: ", reason))
        assert await is_let_in(server, holder(authority, HolderRole.OPERATOR, file="good"))
        assert not await is_let_in(server, mine)
        assert len(log_lines(caplog.text, " warning ", "not let in")) == 1  # the same reason again


async def test_who_shows_no_certificate(
    server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca))
    with trio.fail_after(DEADLINE):
        transport = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with trio.SSLStream(transport, context, server_hostname="localhost") as stream:
            await stream.do_handshake()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
    assert await eventually(lambda: log_lines(caplog.text, "not let in: it shows no certificate"))


async def test_who_speaks_no_tls(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(server) as peer:
        await peer.channel.send(CLIENT)
        assert b"hello" not in await peer.wait_closed()
    assert await eventually(lambda: log_lines(caplog.text, "not let in: it speaks no TLS"))


@pytest.mark.parametrize(
    ("host", "of", "said"),
    [
        ("other.example.org", "ca", "it does not take this server's certificate: it calls this server by a name that"),
        ("localhost", "other", "it does not take this server's certificate: its --tls-ca is of another authority"),
        ("localhost", "farm", "it does not take this server's certificate: its --tls-ca is of another authority"),
        ("localhost", None, "it has closed the connection within the handshake"),
    ],
)
async def test_who_does_not_take_the_server_s_certificate(
    host: str, of: str | None, said: str, server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    ca = authority.ca if of == "ca" else Authority(authority.directory / "other", common=of or "other").ca
    context = ssl.create_default_context(cafile=str(ca))

    def knock() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as plain:
            if of is not None:
                with pytest.raises(ssl.SSLCertVerificationError):  # of which it tells, other than trio's
                    context.wrap_socket(plain, server_hostname=host)

    await trio.to_thread.run_sync(knock)
    assert await eventually(lambda: log_lines(caplog.text, "not let in: ", said))


def test_a_certificate_of_no_server_is_none_for_a_server(authority: Authority) -> None:
    own = authority.server(usages=[ExtendedKeyUsageOID.CLIENT_AUTH]).files
    with pytest.raises(InvalidCredentials, match=f"{own.certificate} is no certificate of a server"):
        certified.Certificates(own, authority.crl, wall_clock)


@pytest.mark.parametrize(
    "called",
    [
        x509.NameAttribute(NameOID.COMMON_NAME, "farm", _ASN1Type.PrintableString),
        x509.NameAttribute(NameOID.COMMON_NAME, "Farm"),
    ],
    ids=["in another encoding", "in another case"],
)
async def test_a_list_that_writes_the_name_of_its_authority_in_another_way(
    tmp_path: Path, authority: Authority, called: x509.NameAttribute[str]
) -> None:
    operator = holder(authority, HolderRole.OPERATOR)
    authority.revoke(operator, called=x509.Name([called]))
    async with serving(tmp_path, authority) as server:
        assert not await is_let_in(server, operator)


async def test_an_authority_below_another_that_is_revoked(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certified, "POLL", 0.02)
    below = Authority(tmp_path / "below", common="below", above=authority)
    operator = below.issue("ann", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)
    async with serving(tmp_path, authority) as server, shown(server, operator, OURS) as peer:
        authority.revoke(below)
        await peer.wait_closed()
        assert await eventually(lambda: log_lines(caplog.text, "(ann): ", "closed: its certificate was revoked"))
        assert not await is_let_in(server, operator)


async def test_a_list_counts_once_its_authority_is_known(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of the two files is copied first."""
    monkeypatch.setattr(certified, "POLL", 0.02)
    other = Authority(tmp_path / "other", common="other")
    bad = other.issue("ann", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)
    other.revoke(bad)
    authority.revoke()
    async with serving(tmp_path, authority) as server:
        authority.crl.write_bytes(authority.crl.read_bytes() + other.crl.read_bytes())
        await eventually(lambda: "was not signed by an authority of" in caplog.text)
        authority.ca.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
        await eventually(lambda: "1 revoked" in caplog.text)
        assert not await is_let_in(server, bad)


async def test_a_certificate_that_is_revoked_ends_its_open_connections(
    server: LocalServer, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operator = holder(authority, HolderRole.OPERATOR)
    worker = authority.issue("w1", uris=[HolderRole.WORKER.uri])
    other = authority.issue("w2", uris=[HolderRole.WORKER.uri])
    async with shown(server, operator, CLIENT) as peer:
        await peer.send(schedule("a"))
        await peer.receive(Success)
    async with AsyncExitStack() as guests:
        building = await guests.enter_async_context(shown(server, worker, WORKER))
        await building.send(JobRequested(platform="p1"))
        await given_job(building)
        waiting = await guests.enter_async_context(shown(server, other, OUR_WORKER))
        await waiting.send(AskJob(platform="p1", worker="w"))
        thinking = await guests.enter_async_context(shown(server, operator, OURS))
        authority.revoke(worker, operator)
        assert await building.wait_end() == "reset"  # which no worker takes for success
        await thinking.wait_closed()
        assert await eventually(lambda: log_lines(caplog.text, "(w1): ", "closed: its certificate was revoked"))
        await waiting.receive(GiveJob)  # what the other had
    assert not await is_let_in(server, operator)


async def test_a_build_of_a_worker_that_is_revoked_waits_for_it(server: LocalServer, authority: Authority) -> None:
    """It may come back with another certificate: what it shows of its build is the secret."""
    first, second = (authority.issue("w1", uris=[HolderRole.WORKER.uri], file=file) for file in ("first", "second"))
    async with shown(server, holder(authority, HolderRole.OPERATOR), CLIENT) as peer:
        await peer.send(schedule("a"))
        await peer.receive(Success)
    async with shown(server, first, OUR_WORKER) as building:
        given = await ask_job(building)
        authority.revoke(first)
        await building.wait_closed()
    async with shown(server, second, OUR_WORKER) as back:
        assert isinstance(await given.come_back(back), Continue)
        await given.finish(back)
    assert server.query("select state, losses from build") == [("finished", 0)]


async def test_a_list_that_can_not_be_read_keeps_the_one_before(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certified, "POLL", 0.02)
    bad, good = holder(authority, HolderRole.OPERATOR, file="bad"), holder(authority, HolderRole.OPERATOR)
    async with serving(tmp_path, authority) as server:
        authority.revoke(bad)
        await eventually(lambda: "1 revoked" in caplog.text)
        await _break_list(server, authority, bad, good, caplog)


async def _break_list(
    server: LocalServer, authority: Authority, bad: Issued, good: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    for break_it, said in (
        (lambda: authority.crl.write_text("garbage"), "there is no list of revoked certificates in it"),
        (authority.crl.unlink, "No such file"),
        (lambda: authority.crl.write_bytes(_list_of_another(authority)), "was not signed by an authority of"),
    ):
        break_it()
        await eventually(lambda: log_lines(caplog.text, " error ", "what was there before is kept", said))  # noqa: B023
        assert not await is_let_in(server, bad)
    assert await is_let_in(server, good)
    authority.revoke()
    await eventually(lambda: caplog.text.count("1 revoked") == 2)


async def test_an_older_list_lets_nobody_in_again(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And whoever it revokes is revoked, too; a restart changes nothing of both, and neither does a list that is gone."""
    monkeypatch.setattr(certified, "POLL", 0.02)
    observer = holder(authority, HolderRole.OBSERVER, file="observer")
    bad, worse = (holder(authority, HolderRole.OPERATOR, file=file) for file in ("bad", "worse"))
    authority.revoke(bad, number=7)
    older = Authority(tmp_path / "older", key=authority.key)  # as it was in a backup
    older.revoke(worse, number=6)
    said = "crl.pem has an older list of CN=farm, number 6 of ", "number 7 of "
    async with serving(tmp_path, authority) as server:
        assert not await is_let_in(server, bad)
        older.crl.replace(authority.crl)
        assert await eventually(lambda: log_lines(caplog.text, " warning ", *said))
        assert not await is_let_in(server, bad)
        assert not await is_let_in(server, worse)
    caplog.clear()
    async with serving(tmp_path, authority) as server:
        assert await eventually(lambda: log_lines(caplog.text, " warning ", *said))
        assert not await is_let_in(server, bad)
        assert not await is_let_in(server, worse)
        async with shown(server, observer, OURS) as peer:
            pages = await peer.request(Look(entries=0, results=0))
            warnings = [line for page in pages if isinstance(page, Looked) for line in page.warnings]
            assert [said[0] in line for line in warnings] == [True]
        authority.revoked = [worse.serial]
        authority.revoke(number=8)  # what is newer counts alone
        assert await eventually(lambda: log_lines(caplog.text, "crl.pem is read again: 1 revoked"))
        assert await is_let_in(server, bad)
    authority.crl.unlink()
    async with serving(tmp_path, authority) as server:
        assert await eventually(
            lambda: log_lines(caplog.text, " warning ", "crl.pem is gone: whom it revoked stays out")
        )
        assert not await is_let_in(server, worse)


def test_lists_without_a_number_are_told_by_their_time(tmp_path: Path, authority: Authority) -> None:
    authority.revoke()
    first = authority.crl.read_bytes()
    authority.revoke(number=1)
    assert not read_revoked(authority.crl, authority.ca, first).older  # of the same second, or later
    with pytest.raises(InvalidCredentials, match=r"builder\.crl in the server's directory is damaged: remove it"):
        read_revoked(authority.crl, authority.ca, b"-----BEGIN X509 CRL-----")


async def test_that_nobody_is_known_to_be_revoked_is_said(
    server: LocalServer, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    assert await eventually(
        lambda: log_lines(caplog.text, f"nobody is known to be revoked: there is no {authority.crl}")
    )


def _list_of_another(authority: Authority) -> bytes:
    other = Authority(authority.directory / "another", common=authority.common)
    other.revoke()
    return other.crl.read_bytes()


async def test_a_certificate_of_the_server_is_renewed_without_a_restart(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certified, "POLL", 0.02)
    operator = holder(authority, HolderRole.OPERATOR)
    async with serving(tmp_path, authority) as server, shown(server, operator, OURS) as open_before:
        files = authority.server().files  # into the same files
        await eventually(lambda: log_lines(caplog.text, "server.pem is read again"))
        async with shown(server, operator) as peer:
            assert ssl.DER_cert_to_PEM_cert(peer.stream.chain[0]).encode() == files.certificate.read_bytes()  # type: ignore[attr-defined]
        before = files.certificate.read_bytes()
        files.certificate.write_text("garbage")
        await eventually(lambda: log_lines(caplog.text, " error ", "server.pem", "what was there before is kept"))
        async with shown(server, operator) as peer:
            assert ssl.DER_cert_to_PEM_cert(peer.stream.chain[0]).encode() == before  # type: ignore[attr-defined]
        assert isinstance((await open_before.request(ShowJob(name="a")))[-1], Failure)


async def test_an_authority_that_is_removed_ends_the_connections_of_its_holders(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And of none that another one knows."""
    monkeypatch.setattr(certified, "POLL", 0.02)
    other = Authority(tmp_path / "other", common="other farm")
    alice = authority.issue("alice", uris=[HolderRole.OPERATOR.uri])
    bob = other.issue("bob", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)
    files = authority.server().files
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
    async with (
        serving(tmp_path, authority, tls=evolve(files, ca=both)) as server,
        shown(server, alice, OURS) as stays,
        shown(server, bob, OURS) as goes,
    ):
        assert isinstance((await goes.request(ShowJob(name="a")))[-1], Failure)
        both.write_bytes(authority.ca.read_bytes())
        await goes.wait_closed()
        assert await eventually(lambda: log_lines(caplog.text, "(bob): ", "closed: its authority was removed"))
        assert isinstance((await stays.request(ShowJob(name="a")))[-1], Failure)
        assert not await is_let_in(server, bob)
        both.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
        await eventually(lambda: caplog.text.count("server.pem is read again") == 2)
        assert isinstance((await stays.request(ShowJob(name="a")))[-1], Failure)
        assert await is_let_in(server, bob)


async def test_a_list_that_came_before_its_authority_counts_with_it(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certified, "POLL", 0.02)
    other = Authority(tmp_path / "other", common="other farm")
    bob = other.issue("bob", uris=[HolderRole.OPERATOR.uri], trusted=authority.ca)
    other.revoke(bob)
    authority.revoke()
    files = authority.server().files
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca.read_bytes())
    lists = tmp_path / "crl.pem"
    lists.write_bytes(authority.crl.read_bytes())
    async with serving(tmp_path, authority, tls=evolve(files, ca=both)) as server:
        lists.write_bytes(authority.crl.read_bytes() + other.crl.read_bytes())
        await eventually(lambda: log_lines(caplog.text, " error ", "crl.pem", "was not signed by an authority of"))
        both.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
        await eventually(lambda: "1 revoked" in caplog.text)
        assert not await is_let_in(server, bob)


# --- the end of certificates ---------------------------------------------------------------------------------------


async def test_what_ends_soon_is_said_once_a_day(
    tmp_path: Path,
    authority: Authority,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(expiry, "LOOK_INTERVAL", 0.001)
    clock.now = Instant.from_datetime(now())
    alice = holder(authority, HolderRole.OPERATOR, end=now() + 10 * DAY)
    bob = authority.issue("bob", uris=[HolderRole.OBSERVER.uri], end=now() + 40 * DAY)
    tls = authority.server(end=now() + 20 * DAY).files
    async with serving(tmp_path, authority, tls=tls, now=clock) as server, AsyncExitStack() as guests:
        for who in (alice, alice, bob):
            await guests.enter_async_context(shown(server, who, OURS))
        assert len(log_lines(caplog.text, " warning ", "the certificate of alice ends on ", ": renew it")) == 1
        assert len(log_lines(caplog.text, " warning ", "the server's certificate ", "server.pem ends on ")) == 1
        clock.now = Instant.from_datetime(now() + dt.timedelta(days=1, hours=1))
        await eventually(lambda: len(log_lines(caplog.text, "the certificate of alice ends on ")) == 2)
        clock.now = Instant.from_datetime(now())  # it was ahead
        await eventually(lambda: len(log_lines(caplog.text, "the certificate of alice ends on ")) == 3)
        assert "the certificate of bob" not in caplog.text
        clock.now = Instant.from_datetime(now() + 25 * DAY)
        await eventually(lambda: log_lines(caplog.text, "the server's certificate ", "server.pem has ended on "))
        clock.now = Instant.from_datetime(now() + 3630 * DAY)
        await eventually(
            lambda: log_lines(
                caplog.text, " warning ", f"the certificate of CN=farm in {tls.ca} ends on ", ": renew it"
            )
        )


async def test_info_and_the_first_screen_tell_what_ends_soon(tmp_path: Path, authority: Authority) -> None:
    alice = holder(authority, HolderRole.OBSERVER, end=now() + 10 * DAY + dt.timedelta(hours=1)).files
    server = authority.server(end=now() + 5 * DAY + dt.timedelta(hours=1)).files
    given = [f"--tls-cert={server.certificate}", f"--tls-key={server.key}", f"--tls-client-ca={server.ca}"]
    mine = [f"--tls-cert={alice.certificate}", f"--tls-key={alice.key}", f"--tls-ca={alice.ca}"]
    (tmp_path / "data").mkdir()
    key = Keyring(tmp_path / "data").rotate(wall_clock(), dt.timedelta(), 3 * DAY + dt.timedelta(hours=1)).public
    async with start_server(tmp_path, *given) as found:
        done = await trio.to_thread.run_sync(lambda: run_client(found, *mine, "info"))
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode()
        assert f"Warning: the server's certificate {server.certificate} ends in 5 d: renew it" in said
        assert "Warning: the certificate of alice ends in 10 d: renew it" in said
        done = await trio.to_thread.run_sync(lambda: run_client(found, *mine))
        assert done.stdout.decode().splitlines()[2:5] == [
            "the key that signs builds ends in 3 d: 'builder-server keys rotate' makes another",
            f"the server's certificate {server.certificate} ends in 5 d: renew it",
            "the certificate of alice ends in 10 d: renew it",
        ]
        done = await trio.to_thread.run_sync(lambda: run_client(found, *mine, "info", "--json"))
        ending = json.loads(done.stdout)
        assert [each["id"] for each in ending["signing_keys"]] == [key.id]
        assert [(each["name"], each["is_own"]) for each in ending["certificates"]] == [
            (str(server.certificate), True),
            ("alice", False),
        ]


async def test_a_certificate_that_expires_ends_its_connections(
    tmp_path: Path, authority: Authority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certified, "POLL", 0.001)
    monkeypatch.setattr(certified, "LOOKS", 1)
    clock.now = Instant.from_datetime(now())
    alice = holder(authority, HolderRole.OPERATOR, end=now() + 10 * DAY)
    async with serving(tmp_path, authority, now=clock) as server, shown(server, alice, OURS) as peer:
        assert isinstance((await peer.request(ShowJob(name="a")))[-1], Failure)
        clock.now = Instant.from_datetime(now() + 11 * DAY)
        await peer.wait_closed()
