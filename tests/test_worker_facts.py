"""What a worker tells of itself."""

import os
from pathlib import Path

from worker_program import open_server, run_worker

from builder import __version__
from builder.extension.working import AskJob


async def test_what_a_worker_tells(tmp_path: Path) -> None:
    arguments = ("--loop", "--slots", "2", "--sandbox", "none")
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, *arguments),
        server.accept_ours() as connection,
    ):
        asked = await connection.hear()
        assert isinstance(asked, AskJob)
    asked.check()
    told = {fact.name: fact.value for fact in asked.facts}
    assert float(told.pop("load")) >= 0
    assert told == {
        "version": __version__,
        "arch": os.uname().machine,
        "cores": str(len(os.sched_getaffinity(0))),
        "sandbox": "none",
        "slots": "2",
    }
