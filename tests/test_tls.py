"""tls, encrypted: connections with a certificate on each side."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from authorities import Authority, Issued
from farm import DEADLINE

from builder.runtime.encrypted import EncryptedStream
from builder.runtime.sockets import reset_at_close
from builder.runtime.tls import InvalidCredentials, TlsFiles


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def pair(server: Issued, peer: Issued) -> AsyncIterator[tuple[EncryptedStream, EncryptedStream]]:
    """Yield both ends of a connection, the server's first, once they have shaken hands."""
    async with transports() as (one, other):
        ends = (
            EncryptedStream(one, server.files.server_context(), server_side=True),
            EncryptedStream(other, peer.context, server_hostname="localhost"),
        )
        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for end in ends:
                    nursery.start_soon(end.do_handshake)
            yield ends


@asynccontextmanager
async def transports() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        other = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with other, await listener.accept() as one:
            yield one, other


async def test_bytes_go_both_ways_at_once(authority: Authority) -> None:
    data = bytes(range(256)) * 4096
    async with pair(authority.server(), authority.issue("alice")) as ends:

        async def send(stream: EncryptedStream) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(send, end)
            for end in ends:
                received = bytearray()
                while piece := await end.receive_some(50_000):
                    assert len(piece) <= 50_000
                    received += piece
                assert received == data


async def test_each_side_knows_the_other(authority: Authority) -> None:
    server, alice = authority.server(), authority.issue("alice")
    async with pair(server, alice) as (one, _):
        assert ssl.DER_cert_to_PEM_cert(one.chain[0]).encode() == alice.files.certificate.read_bytes()
        assert one.described_certificate["subject"] == ((("commonName", "alice"),),)


async def read_all(stream: EncryptedStream) -> bytes:
    received = bytearray()
    while piece := await stream.receive_some():
        received += piece
    return bytes(received)


async def test_an_end_in_order_is_said(authority: Authority) -> None:
    async with pair(authority.server(), authority.issue("alice")) as (one, other):
        await one.send_all(b"x")
        await one.aclose()
        assert await other.receive_some() == b"x"
        assert other._tls.read(1) == b""  # by a goodbye: the end of what carries it alone would be an error


async def test_an_end_by_reset_is_no_end_in_order(authority: Authority) -> None:
    async with pair(authority.server(), authority.issue("alice")) as (one, other):
        reset_at_close(one, reset=True)
        await one.send_all(b"x")
        await one.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(other)


async def test_what_was_cut_off_is_followed_by_nothing(authority: Authority) -> None:
    async with pair(authority.server(), authority.issue("alice")) as (one, other):
        with trio.move_on_after(0.05) as scope:
            while True:
                await one.send_all(bytes(1_000_000))
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError):
            await one.send_all(b"x")
        await one.aclose()
        await read_all(other)
        with pytest.raises(ssl.SSLEOFError):  # there was no goodbye, which would follow what is cut off
            other._tls.read(1)


async def test_older_versions_are_not_spoken(authority: Authority) -> None:
    server, peer = authority.server().files.server_context(), authority.issue("alice").context
    peer.minimum_version = peer.maximum_version = ssl.TLSVersion.TLSv1_2
    async with transports() as (one, other):
        ends = EncryptedStream(one, server, server_side=True), EncryptedStream(other, peer, server_hostname="localhost")
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            await shake(*ends)


async def shake(one: EncryptedStream, other: EncryptedStream) -> None:
    """Shake hands; raise what the server has to say against that."""

    async def peer() -> None:
        with contextlib.suppress(ssl.SSLError, trio.BrokenResourceError):
            await other.do_handshake()

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            failure = None
            try:
                await one.do_handshake()
            except ssl.SSLError as error:
                failure = error
                await one.aclose()
    if failure:
        raise failure


async def test_sessions_are_not_resumed(authority: Authority) -> None:
    """What was revoked since the last connection must be seen."""
    async with pair(authority.server(), authority.issue("alice")) as (one, other):
        await one.send_all(b"x")
        assert await other.receive_some() == b"x"
        session = other._tls.session
        assert session is None or not session.has_ticket


def test_files_that_can_not_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.server().files, authority.issue("other").files
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no PEM")
    missing = tmp_path / "missing.pem"
    for files, said in (
        (TlsFiles(certificate=missing, key=good.key, ca=good.ca), f"can't read {missing}: No such file"),
        (TlsFiles(certificate=good.certificate, key=tmp_path, ca=good.ca), f"can't read {tmp_path}: Is a dir"),
        (TlsFiles(certificate=good.certificate, key=other.key, ca=good.ca), "not that of the certificate"),
        (TlsFiles(certificate=garbage, key=good.key, ca=good.ca), f"{garbage} and "),
        (TlsFiles(certificate=good.certificate, key=good.key, ca=garbage), f"{garbage}: there is no certificate"),
        (TlsFiles(certificate=good.certificate, key=good.key, ca=good.key), f"{good.key}: "),
    ):
        with pytest.raises(InvalidCredentials) as caught:
            files.server_context()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_key_that_everybody_can_read_is_refused(authority: Authority) -> None:
    good = authority.server().files
    for mode in (0o644, 0o604):
        good.key.chmod(mode)
        for make in (good.server_context, good.peer_context):
            with pytest.raises(InvalidCredentials, match=f"everybody can read {good.key}: chmod o= {good.key}"):
                make()
    good.key.chmod(0o640)  # the server's group may
    good.server_context()


def test_an_encrypted_key_is_refused_at_once(authority: Authority, tmp_path: Path) -> None:
    """OpenSSL would ask for the password on the terminal."""
    from cryptography.hazmat.primitives import serialization

    good = authority.server().files
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    good.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(InvalidCredentials, match="is encrypted"):
        good.server_context()
