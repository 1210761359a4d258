"""The original's protocol through the real stunnel, with the configuration of docs/certificates.md."""

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from authorities import Authority, Issued
from farm import LocalServer, eventually, free_port, run_server
from operators import ROOT, need
from scripted import ask, build, connect, do, info, schedule, take_job

from builder.messages import Failure
from builder.model import Artifact


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    need("stunnel", ["stunnel"])
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def tunnel(server: LocalServer, holder: Issued, directory: Path) -> AsyncIterator[LocalServer]:
    """Run stunnel as the page says, and yield the server as it is reached through it."""
    page = (ROOT / "docs/certificates.md").read_text("utf-8")
    (text,) = re.findall(r"```\n(foreground = .*?)```", page, re.DOTALL)
    port = free_port()
    replaced = {
        "accept": f"127.0.0.1:{port}",
        "connect": f"127.0.0.1:{server.port}",
        "CAfile": holder.files.ca,
        "cert": holder.files.certificate,
        "key": holder.files.key,
        "checkHost": "localhost",
    }
    for key, value in replaced.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1
    path = directory / f"stunnel-{port}.conf"
    path.write_text(text, "utf-8")
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(["stunnel", path], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        await eventually(lambda: "Configuration successful" in log.read_text(), what="stunnel")
        yield attrs.evolve(server, port=port)
    except BaseException as error:
        error.add_note(log.read_text())
        raise
    finally:
        process.kill()
        process.wait()


async def test_a_classic_client_and_a_classic_worker(tmp_path: Path, authority: Authority) -> None:
    ann = authority.issue("ann", uris=["urn:builder:operator"])
    w1 = authority.issue("w1", uris=["urn:builder:worker:p1"])
    async with (
        run_server(tmp_path, tls=authority.server().files) as server,
        tunnel(server, ann, tmp_path) as for_ann,
        tunnel(server, w1, tmp_path) as for_w1,
    ):
        await do(for_ann, schedule("a"))
        content = bytes(range(256)) * 4096
        uuid, _ = await build(for_w1, lines=[b"one", b"two"], artifacts=[Artifact(path="x", content=content)])
        # it was told that the result is on the disk
        assert [entry.job.name for entry in (await info(for_ann)).schedule] == ["a"]
        (artifact,) = server.execution("a", uuid).artifacts
        assert artifact.content == content
        # its certificate is no operator's
        refused = await ask(for_w1, schedule("b"))
        assert isinstance(refused, Failure)
        assert "needs the role operator" in refused.message


async def test_a_job_that_is_lost_behind_it_is_queued_again(tmp_path: Path, authority: Authority) -> None:
    """stunnel makes an end in order of the server's reset: the server does not need the worker to know."""
    holder = authority.issue("w", uris=["urn:builder:worker", "urn:builder:operator"])
    async with (
        run_server(tmp_path, tls=authority.server().files) as server,
        tunnel(server, holder, tmp_path) as through,
    ):
        await do(through, schedule("a"))
        async with take_job(through) as taken:
            authority.revoke(holder)
            await taken.peer.wait_end()
        await eventually(lambda: len(server.query("select * from queue")) == 1, what="the job in its queue")


async def test_a_server_with_another_name_gets_nothing(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    ann = authority.issue("ann", uris=["urn:builder:operator"])
    async with (
        run_server(tmp_path, tls=authority.server(hosts=["elsewhere"]).files) as server,
        tunnel(server, ann, tmp_path) as through,
        connect(through) as peer,
    ):
        await peer.wait_end()
    assert "ann" not in caplog.text
