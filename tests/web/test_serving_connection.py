"""Requests over real connections: what is asked for, what is answered, and what a peer can't hold up."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from served import read_all, read_until, serving
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from builder_web.serving.connection import MAX_HEAD, Limits, PeerGone

QUICK = Limits(head=0.2, piece=0.2, linger=0.2, linger_idle=0.2)
View = Callable[[Request], Awaitable[Response]]


def application(view: View) -> Any:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (await view(Request(scope, receive, send)))(scope, receive, send)

    return answer


async def say(request: Request) -> Response:
    body = await request.body()
    return PlainTextResponse(f"{request.method} {request.scope['raw_path'].decode()} {len(body)}")


async def refuse(_request: Request) -> Response:
    return PlainTextResponse("no", status_code=401)


async def for_ever(send: Callable[[], Awaitable[None]]) -> None:
    while True:
        await send()


def get(target: str = "/", *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_a_connection_answers_one_request_after_another() -> None:
    async with serving(application(say)) as served, await served.connect() as stream:
        await stream.send_all(get("/a") + get("/b"))
        await read_until(stream, b"GET /b 0")
        await stream.send_all(b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        await read_until(stream, b"POST /c 3")
        await stream.send_all(get("/d", "Connection: close"))
        assert (await read_all(stream)).endswith(b"GET /d 0")


async def test_an_answer_has_a_date_and_a_reason_and_none_to_head_has_a_body() -> None:
    async with serving(application(say)) as served:
        answer = await served.exchange(b"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 9\r\n" in head
    assert b"\r\ndate: " in head
    assert body == b""


async def test_of_an_answer_to_head_no_more_is_made_than_its_head(caplog: pytest.LogCaptureFixture) -> None:
    made = 0

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            made += 1
            await send({"type": "http.response.body", "body": b"more", "more_body": True})

    async with serving(endless) as served, await served.connect() as stream:
        for count in (2, 4):
            await stream.send_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            with trio.fail_after(5):
                while made < count:  # noqa: ASYNC110 - it is the application that counts
                    await trio.sleep(0.01)
    assert made == 4
    assert not caplog.records


async def test_a_peer_that_asks_first_is_told_to_go_on_once_the_body_is_wanted() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with serving(application(say)) as served, await served.connect() as stream:
        await stream.send_all(head)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"abc")
        await read_until(stream, b"POST / 3")
    async with serving(application(refuse), QUICK) as served:
        assert (await served.exchange(head)).startswith(b"HTTP/1.1 401 ")


async def test_a_request_with_two_lengths_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    both = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with serving(application(say), QUICK) as served:
        answer = await served.exchange(both + get("/smuggled"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert caplog.messages == ["sent no request: both Content-Length and Transfer-Encoding are given"]


async def test_an_early_answer_reaches_a_peer_that_sends_without_looking() -> None:
    size = 32 * 1024 * 1024
    async with serving(application(refuse)) as served:
        answer = await served.exchange(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size,
            *([bytes(1024 * 1024)] * (size // 2**20)),
        )
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await client.post(f"http://127.0.0.1:{served.port}/", content=bytes(size))
        assert (found.status_code, found.text) == (401, "no")


async def test_what_comes_after_an_early_answer_is_taken_for_a_while_only() -> None:
    async with serving(application(refuse), QUICK) as served, await served.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await for_ever(partial(stream.send_all, bytes(65536)))


async def test_a_peer_that_reads_nothing_is_given_up() -> None:
    ended = trio.Event()

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(PeerGone):
            await for_ever(partial(send, {"type": "http.response.body", "body": bytes(65536), "more_body": True}))
        ended.set()

    async with serving(endless, QUICK) as served, await served.connect() as stream:
        await stream.send_all(get())
        await ended.wait()


async def test_a_body_that_is_cut_off_is_told_to_the_application() -> None:
    told = trio.Event()

    async def note(request: Request) -> Response:
        with pytest.raises(ClientDisconnect):
            await request.body()
        told.set()
        return PlainTextResponse("cut off", status_code=400)

    async with serving(application(note)) as served:
        async with await served.connect() as stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            await stream.send_eof()
            assert (await read_all(stream)).endswith(b"cut off")
        await told.wait()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (MAX_HEAD + 1), 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_is_no_request_is_refused(request_: bytes, status: int) -> None:
    async with serving(application(say), QUICK) as served:
        assert (await served.exchange(request_)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_target_may_be_a_whole_address() -> None:
    async with serving(application(say)) as served:
        assert (await served.exchange(get("http://x:1/a/b?c", "Connection: close"))).endswith(b"GET /a/b 0")
        assert (await served.exchange(get("http://x", "Connection: close"))).endswith(b"GET / 0")


async def test_a_fault_of_the_application_ends_one_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        if request.url.path == "/fail":
            raise ZeroDivisionError
        return PlainTextResponse("fine")

    async with serving(application(fail)) as served:
        with caplog.at_level(logging.CRITICAL):
            assert await served.exchange(get("/fail")) == b""
        assert (await served.exchange(get("/", "Connection: close"))).endswith(b"fine")


async def test_an_answer_shorter_than_it_says_is_not_taken_for_a_whole_one(caplog: pytest.LogCaptureFixture) -> None:
    async def lie(_request: Request) -> Response:
        return Response(b"short", headers={"content-length": "9"})

    async with serving(application(lie)) as served:
        answer = await served.exchange(get())
    assert not answer.endswith(b"short") or b"content-length: 9" in answer
    assert "a fault of builder-web" in caplog.text


async def test_a_connection_that_asks_for_nothing_ends() -> None:
    async with serving(application(say), QUICK) as served:
        assert await served.exchange(b"") == b""
        assert await served.exchange(b"GET / HTTP/1.1\r\nHost:") == b""


async def test_a_stop_ends_connections_that_ask_for_nothing_at_once() -> None:
    async with serving(application(say)) as served, await served.connect() as stream:
        await stream.send_all(get())
        await read_until(stream, b"GET / 0")
        served.shutdown.request()
        assert await read_all(stream) == b""
