"""A line for each request, whose parts are fields in JSON."""

import json
import logging
from pathlib import Path

import pytest
from served import serving_site
from sites import make_directory

from builder.runtime import logs


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
