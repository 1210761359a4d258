"""A worker that may come back: one connection for many jobs, and builds that outlive their connection."""

from pathlib import Path

from farm import run_server
from scripted import (
    OUR_WORKER,
    ask_job,
    build,
    connect,
    do,
    observe,
    queues,
    schedule,
)

from builder.extension.working import SECRET_SIZE, Alive
from builder.messages import Output
from builder.model import Artifact, Execution, Exited

SOME = (Artifact(path="a", content=b"x" * 100_000), Artifact(path="b/c", content=b""))


def lines_of(record: Execution) -> list[bytes]:
    return [line.line for line in record.console]


# --- one connection ------------------------------------------------------------------------------------------------


async def test_one_job_after_the_other(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"), schedule("b"))
        secrets = set()
        for name in ("a", "b"):
            given = await ask_job(peer)
            assert given.job.name == name
            assert len(given.secret) == SECRET_SIZE
            secrets.add(given.secret)
            await given.say(peer, 0, 3)
            await peer.send(Alive())
            await given.say(peer, 3, 5)
            await given.finish(peer, Exited(code=3), SOME)
            record = server.execution(name, given.uuid)
            assert (record.result, record.artifacts) == (Exited(code=3), SOME)
            assert [(line.delta, line.line) for line in record.console] == [
                (1000 * number, b"line %d" % number) for number in range(5)
            ]
        assert len(secrets) == 2
        assert server.query("select worker_name from build") == [("w",), ("w",)]
        assert given.secret not in b"".join(path.read_bytes() for path in tmp_path.glob("data/*.sqlite3*"))


async def test_a_classic_worker_beside_it(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server, connect(server, OUR_WORKER) as peer:
        await do(server, schedule("a"))
        given = await ask_job(peer)
        await given.say(peer, 0, 1)
        await do(server, schedule("b"))
        uuid, job = await build(server, lines=[b"one"], artifacts=SOME)
        assert job.name == "b"
        assert lines_of(server.execution("b", uuid)) == [b"one"]
        await given.finish(peer)
        assert lines_of(server.execution("a", given.uuid)) == [b"line 0"]
        assert await queues(server) == {"p1": []}
        outputs = await observe(server, given.uuid)
        assert isinstance(outputs, list)
        assert outputs[0] == Output(uuid=given.uuid, line=b"line 0", timestamp=0)
