"""Builds through outages: a real server, a real worker, and between them a proxy that does what networks do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from attrs import define, field
from chaos.proxy import Proxy, proxied
from farm import Server, eventually, free_port, start_server
from scripted import OURS, connect, do, schedule
from worker_program import Worker, run_worker

from builder.extension.builds import CancelBuilds
from builder.messages import Success
from builder.model import Exited

LINES = 1000
"""Lines that the job writes before and after the fault."""

SIZE = 3_000_000


def script(place: Path) -> bytes:
    """A job that says when it has begun, and waits until it may go on."""
    return b"""
seq 1 %(lines)d; : > %(place)b/begun; until [ -e %(place)b/go ]; do sleep 0.01; done; seq %(lines)d | sed 's/^/more /'
head -c %(size)d /dev/zero > large; exit 3
""" % {b"lines": LINES, b"size": SIZE, b"place": bytes(place)}


@define
class Farm:
    """A server and a worker with a job that has begun."""

    root: Path
    port: int
    proxy: Proxy
    servers: AsyncExitStack
    server: Server = field(init=False)
    worker: Worker = field(init=False)

    async def start(self) -> None:
        """Start the server, at the same address each time."""
        self.server = await self.servers.enter_async_context(start_server(self.root, f"--port={self.port}"))

    def go_on(self) -> None:
        """Let the job write the rest."""
        (self.root / "go").touch()

    async def check(self) -> None:
        """Wait for the record of the job, and see that it is whole and the only one."""
        ((uuid, state),) = await eventually(self._ended, what="the end of the build")
        assert state == "finished"
        record = self.server.execution("a", UUID(uuid))
        assert record.result == Exited(code=3)
        lines = [line.line for line in record.console if not line.line.startswith(b"builder-worker: ")]
        numbers = [b"%d" % number for number in range(1, LINES + 1)]
        assert lines == [*numbers, *(b"more " + number for number in numbers)]
        deltas = [line.delta for line in record.console]
        assert deltas == sorted(deltas)
        assert [(artifact.path, len(artifact.content)) for artifact in record.artifacts] == [("large", SIZE)]

    def _ended(self) -> list[tuple[str, str]]:
        return self.server.query("select uuid, state from build where state != 'running'")


@asynccontextmanager
async def at_work(tmp_path: Path) -> AsyncIterator[Farm]:
    port = free_port()
    async with AsyncExitStack() as servers, proxied(port) as proxy:
        farm = Farm(tmp_path, port, proxy, servers)
        await farm.start()
        await do(farm.server, schedule("a", text=script(tmp_path)))
        async with run_worker(tmp_path, "-r", f"127.0.0.1:{proxy.port}", "--loop") as farm.worker:
            await eventually((tmp_path / "begun").exists, what="the begin of the job")
            yield farm


async def drop(farm: Farm) -> None:
    assert farm.proxy.drop(1, [0])


async def halve(farm: Farm) -> None:
    assert farm.proxy.halve()


async def slow_down(farm: Farm) -> None:
    farm.proxy.pause = 0.005


async def kill_server(farm: Farm) -> None:
    farm.server.kill()
    await farm.start()


async def restart_server(farm: Farm) -> None:
    assert farm.server.terminate() == 0
    await farm.start()


async def keep_server_down_until_the_job_has_ended(farm: Farm) -> None:
    farm.server.kill()
    farm.go_on()
    await eventually(lambda: list((farm.root / "work").glob("*/outcome")), what="the result")
    await farm.start()


FAULTS = [drop, halve, slow_down, kill_server, restart_server, keep_server_down_until_the_job_has_ended]


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_outage_costs_no_build(tmp_path: Path, fault: Callable[[Farm], Awaitable[None]]) -> None:
    async with at_work(tmp_path) as farm:
        await fault(farm)
        farm.go_on()
        await farm.check()
        assert farm.worker.log.count(": received") == 1


async def test_a_result_that_is_under_way_is_sent_again(tmp_path: Path) -> None:
    """Each time the connection breaks while it is sent, and what came of it before is nowhere."""
    async with at_work(tmp_path) as farm:
        farm.proxy.pause = 0.002  # 3 MB in pieces of 16 KiB: some seconds, unless it is hurried
        farm.go_on()
        for _ in range(3):
            await eventually(lambda: list(farm.server.job_dir("a").glob("*/full.part")), what="some of the result")
            await drop(farm)
        farm.proxy.pause = 0
        await farm.check()
        assert not list(farm.server.job_dir("a").glob("*/full.part"))


async def test_a_job_that_is_cancelled_ends_at_the_worker(tmp_path: Path) -> None:
    async with at_work(tmp_path) as farm:
        async with connect(farm.server, OURS) as peer:
            ((uuid,),) = farm.server.query("select uuid from build")
            *_, end = await peer.request(CancelBuilds(target=uuid))
            assert end == Success()
        await eventually(lambda: not list((tmp_path / "work").glob("*/lines")), what="the end of the job")
        await eventually(lambda: "the server has ended the build" in farm.worker.log, what="a word of it")
