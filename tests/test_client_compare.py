"""builder-client about what two builds have left: compare, and execute --check-reproducible, against a real server."""

import json
import resource
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import forked
import pytest
import trio
from client_harness import DEADLINE, assert_one_line, environment
from farm import Server, eventually_async, run_client, start_server
from hypothesis import given
from hypothesis import strategies as st
from scripted import build, do, lose_worker, queues, schedule, take_job

from builder.endpoint import Servers
from builder.extension.watching import Looked, QueuedState, Why
from builder.history import Cause
from builder.messages import Execute
from builder.model import Artifact, Exited, Instant
from builder_client import checking, looking
from builder_client.comparison import first_difference
from builder_client.remote import Remote

SWITCH = b"opam-version: 2.0\nroots: a.1\n"
FILES = (
    Artifact(path="bin/tool", content=b"\x7fELF" * 50_000),
    Artifact(path="bin/gone", content=b"x"),
    Artifact(path="opam-switch", content=SWITCH),
    Artifact(path="same", content=b"s"),
)
OTHERS = (
    Artifact(path="bin/tool", content=b"\x7fELF" * 40_000 + b"\x7fElF"),
    Artifact(path="new", content=b""),
    Artifact(path="opam-switch", content=SWITCH.replace(b"a.1", b"a.2")),
    Artifact(path="same", content=b"s"),
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with start_server(tmp_path) as running_server:
        await do(running_server, schedule("a"))
        yield running_server


def client(server: Server, *arguments: str, status: int = 0) -> str:
    done = run_client(server, *arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout.decode()


def run_limited(
    server: Server, *arguments: str, limits: Mapping[int, int], **variables: str
) -> "subprocess.CompletedProcess[bytes]":
    command = ["builder_client", f"--remote={server.remote}", *arguments]
    return forked.run(*command, env=environment(**variables), timeout=DEADLINE, limits=limits)


async def two_builds(server: Server) -> tuple[str, str]:
    one, _ = await build(server, artifacts=FILES)
    await do(server, Execute(name="a"))
    other, _ = await build(server, artifacts=OTHERS)
    return str(one), str(other)


async def test_two_builds_that_differ(server: Server) -> None:
    one, other = await two_builds(server)
    found = json.loads(client(server, "compare", one[:8], other, "--json", status=6))
    assert (found["one"], found["other"]) == (one, other)
    assert (found["same_script"], found["same_artifacts"], found["same"]) == (True, False, 1)
    assert {each["path"]: (each["one"] is None, each["other"] is None, each["at"]) for each in found["differing"]} == {
        "bin/gone": (False, True, None),
        "bin/tool": (False, False, 160_002),
        "new": (True, False, None),
        "opam-switch": (False, False, 27),
    }
    printed = client(server, "compare", one, other, status=6)
    assert "artifacts: 1 the same, 4 not" in printed
    assert "  bin/tool differs at byte 160002 (200000 and 160004 bytes)" in printed
    assert "  bin/gone is only in the one" in printed
    assert "-roots: a.1\n+roots: a.2\n" in printed


async def test_two_builds_that_do_not(server: Server) -> None:
    one, _ = await build(server, artifacts=FILES)
    await do(server, Execute(name="a"))
    other, _ = await build(server, artifacts=FILES)
    assert "artifacts: 4 the same, 0 not" in client(server, "compare", str(one), str(other))


async def test_more_that_differ_than_files_may_be_open(server: Server) -> None:
    for content in (b"1", b"2"):
        await do(server, Execute(name="a"))
        await build(server, artifacts=[Artifact(path=f"{number}", content=content) for number in range(200)])
    uuids = [uuid for (uuid,) in server.query("select uuid from build")]
    done = await trio.to_thread.run_sync(
        partial(run_limited, server, "compare", *uuids, limits={resource.RLIMIT_NOFILE: 100})
    )
    assert (done.returncode, done.stderr) == (6, b"")
    assert done.stdout.count(b"differs at byte 0 (1 bytes)") == 200


async def test_a_file_where_the_other_has_a_directory(server: Server) -> None:
    for paths in (("a", "b/c"), ("a/x", "b")):
        await do(server, Execute(name="a"))
        await build(server, artifacts=[Artifact(path=path, content=b"same") for path in paths])
    uuids = [uuid for (uuid,) in server.query("select uuid from build order by started")]
    printed = client(server, "compare", *uuids, status=6)
    assert [line.strip() for line in printed.splitlines() if " is only in " in line] == [
        "a is only in the one",
        "a/x is only in the other",
        "b is only in the other",
        "b/c is only in the one",
    ]


async def test_builds_whose_artifacts_are_not_there_any_more(server: Server) -> None:
    one, other = await two_builds(server)
    next(server.data_dir.glob(f"a/{one}/full")).unlink()
    found = json.loads(client(server, "compare", one, other, "--json", status=6))
    assert {each["at"] for each in found["differing"]} == {None}
    assert len(found["differing"]) == 4


async def test_another_script_is_told(server: Server, tmp_path: Path) -> None:
    one, _ = await build(server)
    (tmp_path / "new.sh").write_text("#!/bin/sh\necho 2\n")
    client(server, "edit", "a", "--script", str(tmp_path / "new.sh"))
    await do(server, Execute(name="a"))
    other, _ = await build(server)
    printed = client(server, "compare", str(one), str(other))
    assert "script: differs" in printed
    assert "+echo 2\n" in printed


async def test_a_build_alone_is_compared_with_the_last_success(server: Server, tmp_path: Path) -> None:
    one, _ = await build(server)
    assert b"no success before it" in run_client(server, "compare", str(one)).stderr
    (tmp_path / "new.sh").write_text("#!/bin/sh\nfalse\n")
    client(server, "edit", "a", "--script", str(tmp_path / "new.sh"))
    for _ in range(2):
        await do(server, Execute(name="a"))
        failed, _ = await build(server, result=Exited(code=1))
    printed = client(server, "compare", str(failed))
    assert printed.startswith(f"one:   {one} ")
    assert "+false\n" in printed
    assert f"since:      {one}\n" in client(server, "result", str(failed))


async def test_a_build_that_still_runs_is_not_compared(server: Server) -> None:
    one, _ = await build(server)
    await do(server, Execute(name="a"))
    async with take_job(server) as taken:
        done = run_client(server, "compare", str(one), str(taken.uuid))
    assert (done.returncode, done.stdout) == (3, b"")
    assert f"{taken.uuid} still runs" in done.stderr.decode()
    assert_one_line(done.stderr)


async def test_a_build_that_was_lost_is_not_compared(server: Server) -> None:
    one = await lose_worker(server)
    other, _ = await build(server)
    done = run_client(server, "compare", str(one), str(other))
    assert (done.returncode, done.stdout) == (3, b"")
    assert f"the server has not recorded what {one} left" in done.stderr.decode()
    assert_one_line(done.stderr)


async def test_there_is_no_room_to_look_into_artifacts(server: Server, tmp_path: Path) -> None:
    one, other = await two_builds(server)
    (tmp_path / "kept").mkdir()
    done = await trio.to_thread.run_sync(
        partial(
            run_limited,
            server,
            "compare",
            one,
            other,
            limits={resource.RLIMIT_FSIZE: 5120},
            TMPDIR=str(tmp_path / "kept"),
        )
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"can't keep artifacts in " in done.stderr
    assert_one_line(done.stderr)
    assert not list((tmp_path / "kept").iterdir())


async def test_a_build_that_is_not_there(server: Server) -> None:
    done = run_client(server, "compare", "aaaa", "bbbb")
    assert done.returncode == 3
    assert_one_line(done.stderr)


# --- execute --check-reproducible ----------------------------------------------------------------------------------


async def checked(server: Server, *runs: Callable[[], Any], options: tuple[str, ...] = ()) -> Any:
    """Check a job while its runs go on, and return what the client did."""
    await build(server)  # the first run of all
    found: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def check() -> None:
            arguments = ("execute", "a", "--check-reproducible", *options)
            found.append(await trio.to_thread.run_sync(partial(run_client, server, *arguments)))

        nursery.start_soon(check)
        for run in runs:
            await run()
    return found[0]


async def test_a_job_that_is_reproducible(server: Server) -> None:
    run = partial(build, server, artifacts=FILES)
    done = await checked(server, run, run)
    assert (done.returncode, done.stdout.decode()) == (0, "Reproducible: both runs left the same 4 artifacts\n")
    assert '"verdict": "reproducible"' in client(server, "history", "a", "--json")


async def test_a_job_that_is_not(server: Server) -> None:
    done = await checked(server, partial(build, server, artifacts=FILES), partial(build, server, artifacts=OTHERS))
    assert (done.returncode, done.stdout.decode()) == (6, "Not reproducible: bin/gone is only in the one\n")
    assert "differs: bin/gone" in client(server, "history", "a")


async def test_a_run_that_fails(server: Server) -> None:
    done = await checked(
        server,
        partial(build, server, artifacts=FILES),
        partial(build, server, result=Exited(code=3)),
        options=("--json",),
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the second run did not succeed: failed: exited 3; see builder-client log " in done.stderr


@pytest.mark.parametrize("command", [("dequeue", "a"), ("unschedule", "a"), ("drop-platform", "p1")])
async def test_a_check_whose_job_is_taken_away(server: Server, command: tuple[str, ...]) -> None:
    async def take_away() -> None:
        async def is_queued() -> bool:
            return bool((await queues(server))["p1"])

        await eventually_async(is_queued, what="the first run in the queue")
        await trio.to_thread.run_sync(partial(client, server, *command))

    done = await checked(server, take_away)
    assert done.returncode == 1
    assert b"a was taken from the queue or the schedule before it had run twice" in done.stderr


async def test_a_check_says_why_it_waits(server: Server) -> None:
    """It goes on, and says so once for as long as that is the reason."""
    await build(server)
    with forked.start("builder_client", "-r", server.remote, "execute", "a", "--check-reproducible",
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stderr
        said = [await trio.to_thread.run_sync(process.stderr.readline) for _ in range(2)]
        await do(server, Execute(name="a"))  # a change, and still no worker
        await trio.to_thread.run_sync(partial(client, server, "dequeue", "a"))
        rest = (await trio.to_thread.run_sync(process.communicate))[1]
    assert said == [b"Running a twice\n", b"a waits: no worker of this platform\n"]
    assert rest == b"builder-client: a was taken from the queue or the schedule before it had run twice\n"


def test_a_worker_that_comes_back_for_the_second_run_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(*_: object, **__: object) -> Looked:
        entry = QueuedState(job="a", platform="p1", cause=Cause.CHECK, why=whys.pop(0), ahead=0)
        return Looked(now=Instant(0), is_full=False, scheduled=1, queued=(entry,))

    pauses: list[float] = []
    monkeypatch.setattr(looking, "look", look)
    waiting = checking._Waiting(Remote(servers=Servers.of("a", {})), "a", "p1", pauses.append)
    waiting.has_begun = True
    whys = [Why.NO_WORKER, Why.NO_WORKER, Why.NEXT]
    waiting.tell()
    assert (capsys.readouterr().err, len(pauses)) == ("", 2)
    whys = [Why.NO_WORKER] * 5
    waiting.tell()
    waiting.tell()
    assert (capsys.readouterr().err, len(pauses)) == ("a waits: no worker of this platform\n", 5)


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 200_000))
def test_the_first_byte_that_differs(one: bytes, other: bytes, before: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory, name) for name in ("one", "other")]
        for path, content in zip(paths, (one, other), strict=True):
            path.write_bytes(bytes(before) + content)
        expected = None if one == other else before + len(commonprefix(one, other))
        assert first_difference(*paths) == expected


def commonprefix(one: bytes, other: bytes) -> bytes:
    return next((one[:at] for at in range(len(one)) if one[at : at + 1] != other[at : at + 1]), one)
