"""What scanners of ports send, to a listener with TLS and to one without: one line of the log at most for each, and nothing else."""

import contextlib
import struct
from pathlib import Path

import pytest
import trio
from authorities import Authority, Issued
from farm import DEADLINE, LocalServer, Server, eventually, start_server
from scripted import CLIENT, connect, info
from visitors import shown

from builder import codec
from builder.framing import frame
from builder.messages import Info, InfoReply

Files = tuple[Issued, Issued] | None


def client_hello(version: bytes, extensions: bytes = b"") -> bytes:
    """Return a first record of TLS that offers a few old ciphers."""
    ciphers = bytes.fromhex("002f0035000ac013c014")
    body = version + bytes(32) + b"\0" + struct.pack(">H", len(ciphers)) + ciphers + b"\1\0"
    if extensions:
        body += struct.pack(">H", len(extensions)) + extensions
    return b"\x16\3\1" + struct.pack(">H", len(body) + 4) + b"\1\0" + struct.pack(">H", len(body)) + body


PROBES = {
    "nothing": b"",
    "two empty lines": b"\r\n\r\n",
    "HTTP": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.1 with a body": b"POST /cgi-bin/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"A" * 4000,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "a proxy's CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    "RTSP": b"OPTIONS / RTSP/1.0\r\n\r\n",
    "SIP": b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm;branch=x\r\nCall-ID: 1\r\n\r\n",
    "a log4j lookup": b"GET /${jndi:ldap://x/a} HTTP/1.1\r\nUser-Agent: ${jndi:ldap://x/a}\r\n\r\n",
    "SSLv2": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16),
    "SSLv3": client_hello(b"\3\0"),
    "TLS 1.0": client_hello(b"\3\1"),
    "TLS 1.1": client_hello(b"\3\2"),
    "TLS 1.2": client_hello(b"\3\3"),
    "a heartbeat that bleeds": client_hello(b"\3\2", b"\0\x0f\0\1\1") + bytes.fromhex("1803020003014000"),
    "a TLS record that is too long": b"\x16\3\1\xff\xff" + b"\1" * 20_000,
    "a TLS alert": b"\x15\3\1\0\2\2\x28",
    "half a TLS hello": client_hello(b"\3\3")[:20],
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMB": bytes.fromhex("000000a4ff534d4272000000000801400000000000000000000000000000400600000100008100")
    + b"\2PC NETWORK PROGRAM 1.0\0\2NT LM 0.12\0",
    "RDP": bytes.fromhex("0300002a25e00000000000") + b"Cookie: mstshash=nmap\r\n" + bytes.fromhex("0100080003000000"),
    "VNC": b"RFB 003.008\n",
    "Redis": b"*1\r\n$4\r\nINFO\r\n",
    "Redis that writes": b"CONFIG SET dir /root/.ssh\r\nSAVE\r\n",
    "memcached": b"stats\r\n",
    "MongoDB": bytes.fromhex("3a000000a741000000000000d40700000000000061646d696e2e24636d640000000000ffffffff")
    + bytes.fromhex("130000001069736d6173746572000100000000"),
    "PostgreSQL": bytes.fromhex("0000000804d2162f"),
    "MS SQL": bytes.fromhex("1201003400000000000015000601001b000102001c000c0300280004ff08000155000000"),
    "Oracle": bytes.fromhex("005a00000100000001360 12c00000800 7fff7f080000000100200 03a".replace(" ", "")),
    "DNS over TCP": bytes.fromhex("001e0006010000010000000000000776657273696f6e0462696e6400001000 03".replace(" ", "")),
    "LDAP": bytes.fromhex("300c020101600702010304008000"),
    "Kerberos": bytes.fromhex("0000007 16a816e30816ba103020105a20302010aa4815e30".replace(" ", "")),
    "MQTT": bytes.fromhex("101000044d5154540402003c00046e6d6170"),
    "AMQP": b"AMQP\0\0\x09\1",
    "Java RMI": b"JRMI\0\2K",
    "a Java object": bytes.fromhex("aced000573720011"),
    "X11": bytes.fromhex("6c000b0000000000000000000000"),
    "AJP": bytes.fromhex("1234000d02020008485454502f312e31"),
    "RPC": bytes.fromhex("8000002872fe1d130000000000000002000186a00001977c0000000000000000"),
    "telnet": bytes.fromhex("fffb1ffffb20fffb18fffb27fffd01"),
    "SMTP": b"EHLO scanner.example.org\r\n",
    "FTP": b"USER anonymous\r\n",
    "a proxy's header": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    "a proxy's header, version 2": bytes.fromhex("0d0a0d0a000d0a515549540a2111000c7f0000017f00000100010002"),
    "null bytes": bytes(4096),
    "all ones": b"\xff" * 4096,
    "a gigantic length": b"\x7f" + b"\xff" * 7 + b"\xae" + b"\0" * 4096,
    "a shell": b"/bin/sh -c 'id; uname -a'\n",
    "format strings": b"%s%n%x" * 100,
    "escape sequences": b"\x1b]0;owned\7\x1b[2J\r\nwarning: forged line\n",
}


@pytest.fixture(params=["plain", "tls"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """The certificates of the server and of somebody who may use it; None without TLS."""
    if request.param == "plain":
        return None
    authority = Authority(tmp_path / "ca")
    return authority.server(), authority.issue("ann", uris=["urn:builder:operator"])


def options(files: Files) -> list[str]:
    if files is None:
        return []
    own = files[0].files
    return [f"--tls-cert={own.certificate}", f"--tls-key={own.key}", f"--tls-client-ca={own.ca}"]


async def probe(server: Server, data: bytes) -> None:
    """Send it, and wait until the server has had enough of it."""
    async with connect(server) as peer:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.fail_after(DEADLINE):
            await peer.stream.send_all(data)
            await peer.stream.send_eof()
            while await peer.stream.receive_some():
                pass


async def ask(server: Server | LocalServer, files: Files) -> InfoReply:
    if files is None:
        return await info(server)
    async with shown(server, files[1], CLIENT) as peer:
        await peer.channel.send(Info())
        return await peer.channel.receive_expected(InfoReply)


async def test_the_greatest_hits(tmp_path: Path, files: Files) -> None:
    async with start_server(tmp_path, *options(files)) as server, trio.open_nursery() as nursery:
        # one that goes on and on beside all others, as slowly as it may
        for begin in (b"GET / HTTP/1.1\r\nX-a: ", client_hello(b"\3\3")[:5], frame(codec.encode(CLIENT))[:9]):
            slow = await nursery.start(linger, server, begin)
            assert slow is None
        for data in PROBES.values():
            await probe(server, data)
            with trio.fail_after(1):  # nobody else waits
                assert (await ask(server, files)).queues == ()
        log = server.log
        assert log.count("\n") <= len(PROBES) + 3
        assert "Traceback" not in log
        assert "internal error" not in log
        assert "\x1b" not in log
        assert all(" info " in line or " warning " in line for line in log.splitlines())
        nursery.cancel_scope.cancel()


async def linger(server: Server, begin: bytes, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with connect(server) as peer:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.stream.send_all(begin)
        task_status.started()
        await trio.sleep_forever()


async def test_a_scan_leaves_no_memory(tmp_path: Path, files: Files) -> None:
    async def scan(rounds: int) -> None:
        limiter = trio.CapacityLimiter(40)

        async def one(data: bytes) -> None:
            async with limiter:
                await probe(server, data)

        async with trio.open_nursery() as nursery:
            for _ in range(rounds):
                for data in PROBES.values():
                    nursery.start_soon(one, data)

    async with start_server(tmp_path, *options(files)) as server:
        await scan(4)
        await ask(server, files)
        await eventually(lambda: server.descriptors() < 40)
        memory, lines = server.memory(), server.log.count("\n")
        await scan(8)
        await eventually(lambda: server.descriptors() < 40)
        assert server.memory() < memory + 4 * 2**20
        assert server.log.count("\n") <= lines + 8 * len(PROBES)
        await ask(server, files)


async def test_garbage_of_who_has_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    both = authority.server(), authority.issue("ann", uris=["urn:builder:operator"])
    async with start_server(tmp_path, *options(both)) as server:
        for data in (PROBES[name] for name in ("HTTP", "null bytes", "all ones", "a gigantic length", "TLS 1.2")):
            async with shown(server, both[1]) as peer:
                with contextlib.suppress(trio.BrokenResourceError):
                    await peer.stream.send_all(data)
                    await peer.stream.send_eof()
                    while await peer.stream.receive_some():
                        pass
        assert (await ask(server, both)).queues == ()
        await eventually(lambda: server.log.count(" (ann): closed: ") == 5)
        assert "Traceback" not in server.log
