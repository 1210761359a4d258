"""builder-server among many workers and jobs, each recorded once; clients and observers meanwhile."""

from pathlib import Path
from uuid import UUID

import pytest
import trio
from farm import Server, eventually_async, start_server
from scripted import do, info, observe, queues, schedule, take_job

from builder.model import Artifact, Exited

PLATFORMS = 4


@pytest.mark.parametrize(("workers", "jobs"), [(20, 60), pytest.param(50, 200, marks=pytest.mark.long)])
async def test_a_crowd(tmp_path: Path, workers: int, jobs: int) -> None:
    recorded: dict[str, list[UUID]] = {}
    vanished: set[str] = set()

    async def worker(server: Server, number: int) -> None:
        platform = f"p{number % PLATFORMS}"
        while True:
            async with take_job(server, platform) as taken:
                await taken.say(b"line of " + taken.job.name.encode(), b"by %d" % number)
                if taken.job.name.endswith("7") and taken.job.name not in vanished:
                    vanished.add(taken.job.name)  # once, in the middle of the job
                    continue
                await taken.finish(
                    Exited(code=number % 3), [Artifact(path=taken.job.name, content=taken.uuid.bytes * 100)]
                )
                recorded.setdefault(taken.job.name, []).append(taken.uuid)

    async with start_server(tmp_path) as server:
        names = [f"job{number}" for number in range(jobs)]

        async def client(mine: list[str]) -> None:
            for name in mine:
                await do(server, schedule(name, f"p{int(name[3:]) % PLATFORMS}"))

        async def done() -> bool:
            return len(recorded) == jobs

        async with trio.open_nursery() as nursery:
            for number in range(workers):
                nursery.start_soon(worker, server, number)
            for start in range(0, jobs, 20):
                nursery.start_soon(client, names[start : start + 20])
            await eventually_async(done, what="all results", deadline=60)
            nursery.cancel_scope.cancel()
        assert len(vanished) == jobs // 10
        assert {name: len(uuids) for name, uuids in recorded.items()} == dict.fromkeys(names, 1)
        assert (await info(server)).running == ()
        assert await queues(server) == {f"p{number}": [] for number in range(PLATFORMS)}
        rows = server.query("select name, uuid from build where state = 'finished'")
        assert sorted(rows) == sorted((name, str(uuid)) for name, (uuid,) in recorded.items())
        for name, (uuid,) in recorded.items():
            record = server.execution(name, uuid)
            assert record.artifacts == (Artifact(path=name, content=uuid.bytes * 100),)
            assert record.console[0].line == b"line of " + name.encode()
        outputs = await observe(server, recorded["job0"][0])
        assert isinstance(outputs, list)
        assert outputs[0].line == b"line of job0"
        assert "Traceback" not in server.log
