"""A line for each request, whose parts are fields in JSON."""

import json
import logging
import socket
import struct
from pathlib import Path

import pytest
import trio
from served import serving, serving_site
from sites import make_directory, open_site
from starlette.types import Receive, Scope, Send

from builder.runtime import logs
from builder_web import server


async def test_each_request_is_a_line_whose_parts_are_fields(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving_site(make_directory(tmp_path / "data"), prefix="/builds") as (_, served):
        logs.set_up("builder-web", verbosity=0, form="json")
        request = "HEAD /builds/job/%1b%0a?q={} HTTP/1.1\r\nHost: x\r\nUser-Agent: Nosy {}\r\nConnection: close\r\n\r\n"
        await served.exchange(request.format("", "\x80").encode("latin-1"))
        await served.exchange(request.format("", "x" * 5000).replace("HEAD", "GET").encode())
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "access_log" in line]
    assert {key: first[key] for key in ("address", "method", "path", "status", "bytes", "agent")} == {
        "address": "127.0.0.1",
        "method": "HEAD",
        "path": "/job/%1b%0a?q=",
        "status": 404,
        "bytes": 0,
        "agent": "Nosy \\x80",
    }
    assert first["ms"] >= 0
    assert first["level"] == "info"
    assert first["message"].startswith("127.0.0.1 HEAD /job/%1b%0a?q= 404 0 B ")
    assert second["bytes"] > 0
    assert len(second["agent"]) == 500
    logging.getLogger().handlers.clear()


async def test_a_peer_that_goes_before_its_answer_costs_a_line_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked, is_gone, ended = trio.Event(), trio.Event(), trio.Event()
    async with open_site(make_directory(tmp_path / "data")) as site:
        application = server.make_application(site.site, site.settings)

        async def late(scope: Scope, receive: Receive, send: Send) -> None:
            asked.set()
            await is_gone.wait()
            try:
                await application(scope, receive, send)
            finally:
                ended.set()

        with caplog.at_level(logging.INFO):
            async with serving(late) as served:
                async with await served.connect() as stream:
                    await stream.send_all(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
                    await asked.wait()
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                is_gone.set()
                await ended.wait()
    assert [record.name for record in caplog.records] == ["builder_web.serving.access_log"]
