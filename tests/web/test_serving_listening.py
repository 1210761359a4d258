"""Where it listens, and how many connections it takes."""

import errno
import logging
import resource
import socket
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import pytest
import trio
from served import read_until, serving
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from builder.runtime.seats import Seat
from builder_web.serving import listening
from builder_web.serving.listening import CannotListen, accept, listen, max_connections, url_of

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REQUEST_ALONE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
say = PlainTextResponse("here")


def test_all_addresses_of_all_hosts_on_the_same_port() -> None:
    listeners = listen(["127.0.0.1", "::1"], 0)
    try:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        (port,) = ports
        assert [url_of(listener) for listener in listeners] == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
        with pytest.raises(CannotListen, match=f"can't listen on 127.0.0.1 port {port}: Address already in use"):
            listen(["127.0.0.1"], port)
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_closes_the_others(host: str) -> None:
    with pytest.raises(CannotListen, match=host):
        listen(["127.0.0.1", host], 0)


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(resource.RLIM_INFINITY, 1000), (4096, 1000), (1024, 308), (64, 1)],
)
def test_connections_are_as_many_as_there_are_descriptors_for(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert max_connections() == connections


async def test_one_more_than_can_be_served_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 1)
    asked, answer = trio.Event(), trio.Event()

    async def say_later(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await answer.wait()
        await say(scope, receive, send)

    async with serving(say_later) as served, await served.connect() as first:
        await first.send_all(REQUEST)
        await asked.wait()
        async with await served.connect() as second:
            await second.send_all(REQUEST)
            with trio.move_on_after(0.1) as waited:
                await second.receive_some()
            assert waited.cancelled_caught
            answer.set()
            await read_until(first, b"here")
            await read_until(second, b"here")


LARGE = 64 * 1024 * 1024


async def take_in(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a GET of ``/large`` with much, and anything else when its body has come."""
    if scope["path"] == "/large":
        await Response(bytes(LARGE))(scope, receive, send)
    else:
        with suppress(ClientDisconnect):
            await Request(scope, receive).body()
        await say(scope, receive, send)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        REQUEST[:-4],
        REQUEST,
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "half a head", "nothing more", "nonsense", "half a body", "that it wants what it does not read"],
)
async def test_a_crowd_that_keeps_it_waiting_shuts_nobody_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 5)
    async with serving(take_in) as served, AsyncExitStack() as crowd:
        for _ in range(12):
            stream = await crowd.enter_async_context(await served.connect())
            await stream.send_all(said)
        for _ in range(3):
            assert (await served.exchange(REQUEST_ALONE)).endswith(b"here")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_crowd_is_accepted_at_once() -> None:
    (listener,) = listen(["127.0.0.1"], 0)
    address = listener.getsockname()
    served: list[trio.SocketStream] = []

    async def serve(stream: trio.SocketStream, _seat: Seat) -> None:
        served.append(stream)

    with ExitStack() as crowd:
        for _ in range(50):
            crowd.enter_context(socket.create_connection(address, timeout=20))
        rounds = 0
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept, [listener], serve, nursery)
                while len(served) < 50:
                    rounds += 1
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert rounds < 25
    for stream in served:
        await stream.aclose()


async def test_without_descriptors_it_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = trio.SocketListener.accept, [OSError(errno.EMFILE, "Too many open files")]

    async def accept(self: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(self)

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    with caplog.at_level(logging.ERROR):
        async with serving(say) as served, await served.connect() as stream:
            await stream.send_all(REQUEST)
            await read_until(stream, b"here")
    assert caplog.messages == ["connections can't be accepted: Too many open files"]
