"""What a worker tells of itself."""

import json
import os
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from worker_program import open_server, run_worker
from worker_sandboxes import builder_worker

from builder import __version__
from builder.extension.working import AskJob
from builder.messages import GIB
from builder.model import ScriptJob
from builder_worker import facts
from builder_worker.allowances import Machine, auto_slots
from builder_worker.build import Setup
from builder_worker.sandbox import roots
from builder_worker.sandbox.backends.bubblewrap import Bubblewrap
from builder_worker.sandbox.options import Options


async def test_what_a_worker_tells(tmp_path: Path) -> None:
    arguments = ("--loop", "--slots", "2", "--sandbox", "none", "--label", "gpu", "--label", "big-disk")
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
    assert int(told.pop("memory")) > 0
    assert 1 <= int(told.pop("cores")) <= len(os.sched_getaffinity(0))
    assert told.pop("kvm") == ("yes" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no")
    assert told == {
        "version": __version__,
        "arch": os.uname().machine,
        "sandbox": "none",
        "slots": "2",
        "label.gpu": "",
        "label.big-disk": "",
    }


async def test_a_worker_under_pressure_asks_for_nothing_and_says_why(tmp_path: Path) -> None:
    arguments = ("--loop", "--sandbox", "none", "--min-free", "1000T")
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, *arguments) as worker,
        server.accept_ours() as connection,
    ):
        asked = await connection.hear()
        assert isinstance(asked, AskJob)
        told = {fact.name: fact.value for fact in asked.facts}
        assert told["pressure"] == "less than 1000 TiB free on the disk (--min-free)"
        assert "takes no job: less than 1000 TiB free on the disk (--min-free)" in worker.log


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--label", "kvm"), "kvm: the worker finds out itself whether it has that: choose another name for the label"),
        (("--label", "a b"), "a b: write up to 50 letters, digits, dots, dashes and underscores, such as big-disk"),
        (("--max-pressure", "io"), "io: write memory=PERCENT, io=PERCENT, cpu=PERCENT or load=NUMBER, or none"),
        (("--slots", "some"), "'some' is not a number from 1"),
    ],
)
def test_wrong_options_are_refused_with_what_to_write(arguments: tuple[str, ...], complaint: str) -> None:
    done = builder_worker("p1", "--sandbox", "none", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("cpus", "gib", "given", "slots"),
    [
        (2, 4, {}, 1),
        (16, 64, {}, 4),
        (16, 8, {}, 1),
        (64, 256, {}, 16),
        (16, 64, {"cpus": 1.0}, 14),
        (16, 64, {"cpus": 1.0, "memory": 2 * GIB}, 16),
        (4096, 100_000, {}, 64),
    ],
)
def test_how_many_slots_a_machine_has(cpus: float, gib: int, given: dict[str, Any], slots: int) -> None:
    assert auto_slots(Machine(memory=gib * GIB, cpus=cpus), **given) == slots


def test_check_tells_what_a_worker_meets() -> None:
    found = json.loads(builder_worker("check", "--json").stdout)
    if found["auto"] is None:
        pytest.skip("no sandbox works here")
    assert found["facts"]["arch"] == os.uname().machine
    assert found["facts"]["sandbox"] == found["auto"]
    said = builder_worker("check").stdout.splitlines()[-1]
    assert re.fullmatch(rf"Meets arch={os.uname().machine}, cores>=\d+, memory>=\d+[MGT](, kvm)?, sandbox=\w+\.", said)


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
