"""What a worker tells of itself."""

import json
import os
from pathlib import Path

import attrs
from worker_program import open_server, run_worker

from builder import __version__
from builder.extension.working import AskJob
from builder.model import ScriptJob
from builder_worker import facts
from builder_worker.build import Setup
from builder_worker.sandbox import roots
from builder_worker.sandbox.backends.bubblewrap import Bubblewrap
from builder_worker.sandbox.options import Options


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


async def test_what_a_worker_tells_of_a_job(tmp_path: Path) -> None:
    """The limits are those that hold: the operator's, tightened by the server's and the job's own."""
    arguments = ("--sandbox", "none", "--timeout", "10m", "--max-console", "1M", "--max-artifacts", "7")
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, *arguments),
        server.accept_ours() as connection,
    ):
        given = await connection.give(
            b"#!/bin/sh\n# builder: max-artifacts=5\necho x\nexec sleep 1000", time_limit=90_500
        )
        assert await connection.read_line() == b"x"
        first = connection.facts
        await connection.stream.aclose()
        async with server.accept_ours() as again:
            await again.go_on(given, 0)
            assert await again.read_line() == b"x"
            assert again.facts == first
    for name in ("max_artifact_bytes", "memory", "pids"):  # by the machine
        first.pop(f"limit.{name}", None)
    assert first == {
        "version": __version__,
        "arch": os.uname().machine,
        "sandbox": "none",
        "limit.timeout": "90.5",
        "limit.max_console": "1048576",
        "limit.max_artifacts": "5",
    }


def test_the_root_tree_of_a_job(tmp_path: Path) -> None:
    label = roots.RootTree(name="debian-13", suite="trixie", snapshot="20261101T000000Z", sha256="ab" * 32)
    (tmp_path / "etc").mkdir()
    (tmp_path / roots.LABEL).write_text(json.dumps(attrs.asdict(label)))
    backend = Bubblewrap(options=Options(root=tmp_path))
    told = facts.of_job(ScriptJob(name="a", platform="p", script=b""), Setup(backend=backend))
    assert (told["root"], told["snapshot"], told["sandbox"]) == (label.sha256, label.snapshot, "bubblewrap")
